"""From a decoded clip to masks: what every model offers to the pipelines."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from avs_core.audio import window_examples
from avs_core.clip import Clip
from avs_core.errors import ConfigError, NonFiniteOutput
from avs_core.models.bundle import Bundle

FRAME_OFFSET_S = 0.9375
"""Where in its second the published frame lies; the sound of a pass moves with its frames."""


@dataclass(frozen=True)
class ObjectMask:
    """One object in one frame; `object_id` 0 is everything that sounds. `score` is in [0, 1]."""

    object_id: int
    mask: Bool[np.ndarray, "H W"]
    score: float


@dataclass(frozen=True)
class FramePrediction:
    """What sounds in one frame; `masks` is empty when nothing does.

    `second` counts on the video clock, `phase` is the position in the clip's R phases of that second.
    """

    second: int
    phase: int
    masks: tuple[ObjectMask, ...]


class Segmenter(Protocol):
    """What a pipeline needs of a model."""

    def segment(
        self, clip: Clip, start_s: int, target_size: tuple[int, int] | None = None
    ) -> Iterator[FramePrediction]:
        """One prediction a frame, ordered by second and phase, masks at `target_size` (H, W) or source size.

        `start_s` is the second of the video that clip.frames[0] shows. Raises NonFiniteOutput.
        """
        ...


class TpaviSegmenter:
    """A TPAVI bundle at work, in float32. Memory holds one window of logits and one frame at target size.

    The net sees `window_s` consecutive seconds cut at multiples of `window_s` on the video clock, each window and
    phase in a forward pass of its own: a prediction depends neither on how a video was cut into units (at such
    multiples) nor on what else is in a batch.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threshold: float | None = None) -> None:
        """`device` "auto" takes a GPU where there is one; `threshold` overrides the bundle's. Moves the networks."""
        if bundle.config.tpavi is not None and bundle.config.tpavi.classes != 1:
            raise ConfigError(
                f"{bundle.config.name} has {bundle.config.tpavi.classes} classes; object 0 needs one logit"
            )
        cuda = torch.cuda.is_available()
        self.device = torch.device(("cuda" if cuda else "cpu") if device == "auto" else device)
        self.threshold = bundle.config.threshold if threshold is None else threshold
        if not 0 < self.threshold < 1:
            raise ConfigError(f"a threshold is a probability between 0 and 1, got {self.threshold}")
        self._config = bundle.config
        self._net = bundle.net.to(self.device).eval()
        self._audio_encoder = bundle.audio_encoder.to(self.device).eval()
        self._mean = torch.tensor(bundle.config.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(bundle.config.std, device=self.device)[:, None, None]

    def segment(
        self, clip: Clip, start_s: int, target_size: tuple[int, int] | None = None
    ) -> Iterator[FramePrediction]:
        """See `Segmenter.segment`."""
        S, R, h, w, _ = clip.frames.shape
        if (h, w) != (self._config.size, self._config.size):
            raise ConfigError(f"{self._config.name} sees {self._config.size}×{self._config.size} frames, got {h}×{w}")
        size = target_size or (clip.height, clip.width)
        for first, stop in windows(start_s, start_s + S, self._config.window_s):
            passes = [self._logits(clip, start_s, first, stop, phase) for phase in range(R)]
            for second in range(first, stop):
                for phase, logits in enumerate(passes):
                    yield FramePrediction(second, phase, self._masks(logits[second - first], size))

    def _logits(self, clip: Clip, start_s: int, first: int, stop: int, phase: int) -> Float[Tensor, "T h w"]:
        """One forward pass: the seconds [first, stop) at one phase, with the sound that belongs to that phase."""
        shift = phase_offsets(clip.frames.shape[1])[phase] - FRAME_OFFSET_S
        examples = window_examples(
            clip.waveform, stop - first, self._config.alignment, first + shift - clip.audio_start_s
        )
        # A GPU may round float32 products to 19 bits and choose algorithms by speed; archives must not depend on it.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            frames = self._normalised(clip.frames[first - start_s : stop - start_s, phase])
            audio = self._audio_encoder(examples.to(self.device))
            logits: Tensor = self._net(frames[None], audio[None]).logits[0]
        if not bool(torch.isfinite(logits).all()):
            raise NonFiniteOutput(
                f"logits of seconds [{first}, {stop}) are not finite: check the bundle {self._config.name}"
            )
        return logits

    def _normalised(self, frames: UInt8[np.ndarray, "T h w 3"]) -> Float[Tensor, "T 3 h w"]:
        """RGB bytes as the net wants them."""
        scaled = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(0, 3, 1, 2) / 255
        return (scaled - self._mean) / self._std

    def _masks(self, logits: Float[Tensor, "h w"], size: tuple[int, int]) -> tuple[ObjectMask, ...]:
        """Object 0 of one frame: logits are enlarged first, so that edges are smooth at the target size."""
        with torch.inference_mode():
            enlarged = F.interpolate(logits[None, None], size=size, mode="bilinear", align_corners=False)
            probability = torch.sigmoid(enlarged[0, 0])
            mask = probability > self.threshold
            if not bool(mask.any()):
                return ()
            score = float(probability[mask].double().mean())
        return (ObjectMask(object_id=0, mask=mask.cpu().numpy(), score=score),)


def windows(start_s: int, stop_s: int, window_s: int) -> Iterator[tuple[int, int]]:
    """[first, stop) of the windows in [start_s, stop_s), cut at multiples of `window_s`; the ends may be short."""
    first = start_s
    while first < stop_s:
        stop = min((first // window_s + 1) * window_s, stop_s)
        yield first, stop
        first = stop


def phase_offsets(rate: int) -> list[float]:
    """Where in each second the `rate` frames lie, ascending; one of them is 0.9375."""
    return sorted((FRAME_OFFSET_S + k / rate) % 1 for k in range(rate))
