"""How well a net does on composites it has not seen, and whether it listens.

Each clip is scored three times: with its own sound, with near silence and with another clip's sound, always
against the masks of its own sound. A model that only looks scores the same each time.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from avs_core.audio import window_examples
from avs_core.datasets.composites import Composer, Composite
from avs_core.metrics import FrameScores, frame_ious
from avs_core.models.bundle import Bundle
from avs_core.training.data import hush
from avs_core.training.network import Normalisation

Predict = Callable[[UInt8[Tensor, "1 T H W 3"], Float32[Tensor, "1 T 1 96 64"]], Float[Tensor, "1 T H W"]]
"""Logits of one clip from its frames and its log-mel examples."""

THRESHOLDS = tuple(np.linspace(0.2, 0.8, 13).round(2).tolist())


@dataclass
class Tally:
    """Frame by frame figures of one kind of sound, at each of the thresholds on the probability.

    ious      IoU; a frame with an empty truth scores the share of its pixels that are rightly dark
    lit       share of the picture that is lit
    sounding  whether the truth of the frame is not empty
    """

    ious: dict[float, list[float]] = field(default_factory=lambda: {threshold: [] for threshold in THRESHOLDS})
    lit: dict[float, list[float]] = field(default_factory=lambda: {threshold: [] for threshold in THRESHOLDS})
    sounding: list[bool] = field(default_factory=list)

    def add(self, logits: Float[Tensor, "T H W"], target: Bool[Tensor, "T H W"]) -> None:
        """Score the frames of one clip."""
        self.sounding += target.flatten(1).any(1).tolist()
        for threshold in THRESHOLDS:
            shifted = logits - math.log(threshold / (1 - threshold))
            self.ious[threshold] += frame_ious(shifted, target).tolist()
            self.lit[threshold] += (shifted > 0).float().mean((1, 2)).tolist()

    def miou(self, threshold: float) -> float:
        """Mean over all frames."""
        return float(np.mean(self.ious[threshold]))

    def miou_sounding(self, threshold: float) -> float:
        """Mean over the frames in which something seen sounds; 0 if there are none."""
        ious = np.asarray(self.ious[threshold])[self.sounding]
        return float(ious.mean()) if ious.size else 0.0

    def lit_share(self, threshold: float) -> float:
        """Mean over all frames."""
        return float(np.mean(self.lit[threshold]))


@dataclass(frozen=True)
class Evaluation:
    """What was found under the clip's own sound, under none and under another clip's.

    empty   an answer that lights nothing
    fscore  M_F under the own sound, the best over all thresholds
    """

    clips: int
    own: Tally
    hushed: Tally
    foreign: Tally
    empty: Tally
    fscore: float

    def best_threshold(self) -> float:
        """The threshold of the highest mIoU under the own sound."""
        best: float = max(THRESHOLDS, key=self.own.miou)
        return best


def bundle_predict(bundle: Bundle) -> Predict:
    """What a bundle answers to frames of its own size."""
    normalise = Normalisation(bundle.config.mean, bundle.config.std)

    def predict(
        frames: UInt8[Tensor, "1 T H W 3"], log_mel: Float32[Tensor, "1 T 1 96 64"]
    ) -> Float[Tensor, "1 T H W"]:
        audio = bundle.audio_encoder(log_mel[0])[None]
        logits: Tensor = bundle.net(normalise(frames), audio).logits
        return logits

    return predict


@torch.inference_mode()
def evaluate(predict: Predict, composer: Composer, seeds: Iterable[int], window_s: int) -> Evaluation:
    """Score the clips of these seeds, `window_s` seconds at a time.

    A clip's wrong sound is that of the one before it; the first has that of its own seed + 1.
    """
    own, hushed, foreign, empty, curve, clips = Tally(), Tally(), Tally(), Tally(), FrameScores(), 0
    wrong: Float32[np.ndarray, " n"] | None = None
    for clip in map(composer.compose, seeds):
        target = torch.from_numpy(clip.masks)
        if wrong is None:
            _, wrong = composer.sound(composer.plan(clip.scene.seed + 1))
        silence = hush(len(clip.waveform), np.random.default_rng(clip.scene.seed))
        logits = logits_of(predict, clip, clip.waveform, window_s)
        own.add(logits, target)
        curve.update(logits, target)
        hushed.add(logits_of(predict, clip, silence, window_s), target)
        foreign.add(logits_of(predict, clip, wrong, window_s), target)
        empty.add(torch.full(target.shape, -10.0), target)
        wrong, clips = clip.waveform, clips + 1
    return Evaluation(clips, own, hushed, foreign, empty, curve.compute().fscore)


def logits_of(
    predict: Predict, clip: Composite, waveform: Float32[np.ndarray, " n"], window_s: int
) -> Float[Tensor, "T H W"]:
    """The net's answer to a clip's pictures under a sound of its length."""
    frames, log_mel = torch.from_numpy(clip.frames), window_examples(waveform, len(clip.frames))
    return torch.cat([predict(frames[None, at], log_mel[None, at])[0] for at in _windows(clip, window_s)])


def _windows(clip: Composite, window_s: int) -> Iterator[slice]:
    for first in range(0, len(clip.frames), window_s):
        yield slice(first, first + window_s)
