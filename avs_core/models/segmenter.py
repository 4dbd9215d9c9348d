"""From a decoded clip to masks: what every model offers to the pipelines."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from avs_core.clip import Clip
from avs_core.errors import ConfigError, NonFiniteOutput
from avs_core.models.audio_encoders import find_audio_encoder
from avs_core.models.bundle import Bundle
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareOutput
from avs_core.models.overlap import ious
from avs_core.models.tpavi import TPAVIConfig, TPAVIOutput
from avs_core.models.two_stage import TwoStageOutput

FRAME_OFFSET_S = 0.9375
"""Where in its second the published frame lies; the sound of a pass moves with its frames."""

SOMETHING = 0.5
"""1 − p(∅) above which a query is an object."""

SECOND_LOOK = 0.7
"""IoU above which the weaker of two queries is taken for a second look at the stronger one."""

Output = TPAVIOutput | InstanceAwareOutput | TwoStageOutput


@dataclass(frozen=True)
class ObjectMask:
    """One object in one frame. All scores are in [0, 1].

    object_id       0 is everything that sounds; objects count from 1 in each frame, the surest first, and get the
                    numbers that they keep through the video from avs_core.archive.numbering
    score           of object 0 how sure its pixels are; of others how surely they sound, calibrated if the bundle is
    sounding        whether the object would be lit in object 0
    category_score  of the category; audio_score  how surely that category is heard. None for object 0
    """

    object_id: int
    mask: Bool[np.ndarray, "H W"]
    score: float
    sounding: bool = True
    category: str | None = None
    category_score: float | None = None
    audio_score: float | None = None


@dataclass(frozen=True)
class FramePrediction:
    """What is in one frame: object 0 if anything sounds, and the objects of a net that tells them apart.

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


class WindowSegmenter(ABC):
    """A bundle at work, in float32. Memory holds one window of answers and one frame at target size.

    The net sees `window_s` consecutive seconds cut at multiples of `window_s` on the video clock, each window and
    phase in a forward pass of its own: a prediction depends neither on how a video was cut into units (at such
    multiples) nor on what else is in a batch.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threshold: float | None = None) -> None:
        """`device` "auto" takes a GPU where there is one; `threshold` overrides the bundle's. Moves the networks."""
        cuda = torch.cuda.is_available()
        self.device = torch.device(("cuda" if cuda else "cpu") if device == "auto" else device)
        self.threshold = bundle.config.threshold if threshold is None else threshold
        if not 0 < self.threshold < 1:
            raise ConfigError(f"a threshold is a probability between 0 and 1, got {self.threshold}")
        self._config = bundle.config
        self._net = bundle.net.to(self.device).eval()
        self._audio_encoder = bundle.audio_encoder.to(self.device).eval()
        self._front_end = find_audio_encoder(bundle.config.audio_encoder).front_end
        self._mean = torch.tensor(bundle.config.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(bundle.config.std, device=self.device)[:, None, None]

    @property
    def reach(self) -> tuple[int, int]:
        """How far clips must hold sound beyond their seconds, samples before and after: see avs_core.audio.FrontEnd."""
        return self._front_end.reach

    def segment(
        self, clip: Clip, start_s: int, target_size: tuple[int, int] | None = None
    ) -> Iterator[FramePrediction]:
        """See `Segmenter.segment`."""
        S, R, h, w, _ = clip.frames.shape
        if (h, w) != (self._config.size, self._config.size):
            raise ConfigError(f"{self._config.name} sees {self._config.size}×{self._config.size} frames, got {h}×{w}")
        size = target_size or (clip.height, clip.width)
        for first, stop in windows(start_s, start_s + S, self._config.window_s):
            passes = [self._pass(clip, start_s, first, stop, phase) for phase in range(R)]
            for second in range(first, stop):
                for phase, answer in enumerate(passes):
                    with torch.inference_mode():
                        found = tuple(self._masks(answer, second - first, size))
                    yield FramePrediction(second, phase, found)

    @abstractmethod
    def _masks(self, answer: Output, place: int, size: tuple[int, int]) -> Iterator[ObjectMask]:
        """The objects of frame `place` of a window, at `size`."""

    def _pass(self, clip: Clip, start_s: int, first: int, stop: int, phase: int) -> Output:
        """One forward pass: the seconds [first, stop) at one phase, with the sound that belongs to that phase."""
        shift = phase_offsets(clip.frames.shape[1])[phase] - FRAME_OFFSET_S
        examples = self._front_end.examples(
            clip.waveform, stop - first, self._config.alignment, first + shift - clip.audio_start_s
        )
        # A GPU may round float32 products to 19 bits and choose algorithms by speed; archives must not depend on it.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            frames = self._normalised(clip.frames[first - start_s : stop - start_s, phase])
            audio = self._audio_encoder(examples.to(self.device))
            answer: Output = self._net(frames[None], audio[None])
        if not bool(torch.isfinite(answer.logits).all()):
            raise NonFiniteOutput(
                f"logits of seconds [{first}, {stop}) are not finite: check the bundle {self._config.name}"
            )
        return answer

    def _normalised(self, frames: UInt8[np.ndarray, "T h w 3"]) -> Float[Tensor, "T 3 h w"]:
        """RGB bytes as the net wants them."""
        scaled = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(0, 3, 1, 2) / 255
        return (scaled - self._mean) / self._std

    def _union(self, logits: Float[Tensor, "h w"], size: tuple[int, int]) -> Iterator[ObjectMask]:
        """Object 0 of one frame, if anything sounds."""
        probability = torch.sigmoid(enlarged(logits[None], size)[0])
        lit = probability > self.threshold
        mask = by_columns(lit)
        if pixels := np.count_nonzero(mask):
            score = float(torch.where(lit, probability, 0).sum(dtype=torch.float64)) / pixels
            yield ObjectMask(object_id=0, mask=mask, score=score)


class UnionSegmenter(WindowSegmenter):
    """A bundle of paper 1 at work, TPAVI or two-stage: object 0 alone."""

    def __init__(self, bundle: Bundle, device: str = "auto", threshold: float | None = None) -> None:
        """See WindowSegmenter. Raises ConfigError for a net with classes, or with objects that this would not tell."""
        net, name = bundle.config.net, bundle.config.name
        if isinstance(net, InstanceAwareConfig):
            raise ConfigError(f"this writes one region, {name} is {bundle.config.arch}: see open_segmenter")
        if isinstance(net, TPAVIConfig) and net.classes != 1:
            raise ConfigError(f"{name} has {net.classes} classes; object 0 needs one logit")
        super().__init__(bundle, device, threshold)

    def _masks(self, answer: Output, place: int, size: tuple[int, int]) -> Iterator[ObjectMask]:
        return self._union(answer.logits[0, place], size)


class InstanceSegmenter(WindowSegmenter):
    """An instance-aware bundle at work: object 0, and each object that is seen, sounding or silent.

    An object is a query that is more likely something than nothing, or that is lit, and not a second look at a
    stronger one. It sounds if it or a second look at it is lit: what object 0 shows has a name, unless no query is sure
    of a single pixel.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threshold: float | None = None) -> None:
        """See WindowSegmenter. Raises ConfigError for another net."""
        if bundle.config.instance_aware is None:
            raise ConfigError(f"instances need an instance-aware net, {bundle.config.name} is {bundle.config.arch}")
        super().__init__(bundle, device, threshold)
        self._categories = bundle.categories

    def _masks(self, answer: Output, place: int, size: tuple[int, int]) -> Iterator[ObjectMask]:
        assert isinstance(answer, InstanceAwareOutput), "the config says so"
        union = list(self._union(answer.logits[0, place], size))
        yield from union
        found = answer.sight.proposals
        p, masks = found.probabilities[0, place], found.masks[0, place]
        lit = lit_queries(answer.sounding[0, place], masks, self.threshold, bool(union))
        heard = answer.active[0, place] * torch.sigmoid(answer.heard[0, place])
        for number, (i, *again) in enumerate(looks(p, masks, lit), 1):
            mask = by_columns(enlarged(masks[i][None], size)[0] > 0)
            if mask.any():
                kind, raw = int(p[i].argmax()), answer.sounding[0, place, i]
                yield ObjectMask(
                    object_id=number,
                    mask=mask,
                    score=float(raw if self._config.calibration is None else self._config.calibration(raw)),
                    sounding=bool(lit[[i, *again]].any()),
                    category=self._categories[kind],
                    category_score=float(p[i, kind]),
                    audio_score=float(heard[kind]),
                )


def open_segmenter(bundle: Bundle, device: str = "auto", threshold: float | None = None) -> WindowSegmenter:
    """The segmenter that the bundle's net needs. Raises ConfigError."""
    kind = InstanceSegmenter if bundle.config.arch == "instance_aware" else UnionSegmenter
    return kind(bundle, device, threshold)


def objects(p: Float[Tensor, "N K"], masks: Float[Tensor, "N h w"]) -> Int64[Tensor, " n"]:
    """The queries that are objects, the surest first: more likely something than nothing, and no second looks."""
    return torch.tensor([first for first, *_ in looks(p, masks)], dtype=torch.long, device=p.device)


def looks(
    p: Float[Tensor, "N K"], masks: Float[Tensor, "N h w"], also: Bool[Tensor, " N"] | None = None
) -> list[list[int]]:
    """Each object's queries, the surest objects and queries first; those of `also` count, however unsure."""
    sure, seen = p.sum(1), masks > 0
    wanted = (sure > SOMETHING) if also is None else (sure > SOMETHING) | also
    overlap = ious(seen, seen)
    found: list[list[int]] = []
    for i in sure.argsort(descending=True, stable=True).tolist():
        if not wanted[i] or not bool(seen[i].any()):
            continue
        same = next((one for one in found if overlap[i, one[0]] > SECOND_LOOK), None)
        if same is None:
            found.append([i])
        else:
            same.append(i)
    return found


def lit_queries(
    sounding: Float[Tensor, " N"], masks: Float[Tensor, "N h w"], threshold: float, any_lit: bool
) -> Bool[Tensor, " N"]:
    """The queries above the threshold; where several faint ones light a frame together, the one that is heard best."""
    lit = sounding > threshold
    shown = (masks > 0).flatten(1).any(1)
    if any_lit and not bool((lit & shown).any()) and bool(shown.any()):
        lit[torch.where(shown, sounding, -1).argmax()] = True
    return lit


def enlarged(logits: Float[Tensor, "n h w"], size: tuple[int, int]) -> Float[Tensor, "n H W"]:
    """Logits at the target size: enlarged before they are cut off, so that edges are smooth."""
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]


def by_columns(mask: Bool[Tensor, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The same pixels in memory column by column, as run-length encoding goes through them."""
    return mask.T.contiguous().cpu().numpy().T


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
