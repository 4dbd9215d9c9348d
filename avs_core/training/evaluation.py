"""What a run says of itself: how well a net does on held-out clips, and whether it listens.

Each clip is scored three times: with its own sound, with near silence and with another clip's sound, always
against the masks of its own sound. A model that only looks scores the same each time. The full evaluation, with
intervals and controlled pairs, is `avs_core.evaluation`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from avs_core.clip import AUDIO_RATE
from avs_core.datasets.labelled import LabelledClip
from avs_core.errors import TrainingError
from avs_core.evaluation.predict import Predict
from avs_core.metrics import FrameScores, frame_ious
from avs_core.training.data import hush

THRESHOLDS = tuple(np.linspace(0.05, 0.8, 16).round(2).tolist())


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


@torch.inference_mode()
def evaluate(predict: Predict, clips: Iterable[LabelledClip], window_s: int) -> Evaluation:
    """Score the labelled frames of some clips, `window_s` seconds at a time. Raises TrainingError for no clips.

    A clip's wrong sound is that of the one before it; the first has that of the last.
    """
    own, hushed, foreign, empty, curve, count = Tally(), Tally(), Tally(), Tally(), FrameScores(), 0
    first: LabelledClip | None = None
    before: LabelledClip | None = None

    def swap(clip: LabelledClip, other: LabelledClip) -> None:
        seconds = np.resize(np.arange(len(other.sound)), len(clip.frames))
        wrong = torch.from_numpy(other.sound[seconds])
        foreign.add(labelled_logits(predict, clip, wrong, window_s), truth(clip))

    for count, clip in enumerate(clips, 1):
        target, seconds = truth(clip), len(clip.frames)
        silence = hush(seconds * AUDIO_RATE, np.random.default_rng(count))
        logits = labelled_logits(predict, clip, torch.from_numpy(clip.sound), window_s)
        own.add(logits, target)
        curve.update(logits, target)
        hushed.add(labelled_logits(predict, clip, clip.front_end.examples(silence, seconds), window_s), target)
        empty.add(torch.full(target.shape, -10.0), target)
        if before is None:
            first = clip
        else:
            swap(clip, before)
        before = clip
    if first is None or before is None:
        raise TrainingError("measuring needs at least one held-out clip, and there is none")
    swap(first, before)
    return Evaluation(count, own, hushed, foreign, empty, curve.compute().fscore)


def truth(clip: LabelledClip) -> Bool[Tensor, "L H W"]:
    """The masks of the labelled seconds."""
    return torch.from_numpy(clip.masks[clip.labelled])


def labelled_logits(
    predict: Predict, clip: LabelledClip, sound: Float32[Tensor, "T ..."], window_s: int
) -> Float[Tensor, "L *K H W"]:
    """The net's answer for the labelled seconds of a clip's pictures, under a sound of its length."""
    frames = torch.from_numpy(clip.frames)
    cuts = [slice(first, first + window_s) for first in range(0, len(frames), window_s)]
    logits = torch.cat([predict(frames[None, at], sound[None, at])[0] for at in cuts])
    return logits[torch.from_numpy(clip.labelled)]
