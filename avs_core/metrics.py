"""M_J (mean intersection over union) and M_F (F-score, β² = 0.3) of audio-visual segmentation.

Two modes. The *official* one repeats the published evaluation (Zhou et al., ECCV 2022) operation by operation, so
that figures compare with the literature; its F depends on how the frames were batched. The *batch-independent* one
weighs each frame alike, whatever the batches.

Masks are logits in any of (B, T, H, W), (N, H, W), (N, 1, H, W); targets are 0 or 1 of the same shape.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from avs_core.errors import ConfigError

BETA2 = 0.3
THRESHOLDS = 255
_EPS = 1e-7
_TINY = 1e-20

Logits = Float[Tensor, "*frames H W"]
Mask = Num[Tensor, "*masks H W"] | Bool[Tensor, "*masks H W"]


def official_miou(logits: Logits, target: Mask) -> float:
    """Mean over the frames of I / (U + 1e-7), a pixel being on above probability 0.5.

    A frame with an empty target scores the share of its pixels that are rightly off.
    """
    return float(frame_ious(logits, target).sum() / len(_frames(target)))


def official_fscore(logits: Logits, target: Mask) -> float:
    """The highest point of the F curve, averaged over the frames of this batch.

    Frames with an empty target are left out; a batch of nothing else scores 0. The published figure is the mean over
    batches of 4 clips in file order: see `OfficialScores`.
    """
    curves = [curve for curve in frame_f_curves(logits, target) if curve is not None]
    if not curves:
        return 0.0
    total = curves[0]
    for curve in curves[1:]:
        total = total + curve
    return float((total / len(curves)).max())


def frame_ious(logits: Logits, target: Mask) -> Float[Tensor, " N"]:
    """The IoU of each frame, as `official_miou` averages them."""
    on, wanted = torch.sigmoid(_pair(logits, target)[0]) > 0.5, _frames(target) != 0
    both, either = (on & wanted).sum((1, 2)), (on | wanted).sum((1, 2))
    empty = ~wanted.any(2).any(1)
    pixels = wanted.shape[1] * wanted.shape[2]
    inter = torch.where(empty, pixels - either, both)
    union = torch.where(empty, torch.full_like(either, pixels), either)
    return inter.float() / (union.float() + _EPS)


def frame_f_curves(logits: Logits, target: Mask) -> list[Float[Tensor, " thresholds"] | None]:
    """F of each frame at each of 255 thresholds on the probability; None where the target is empty."""
    predicted, wanted = _pair(logits, target)
    return [
        _f_curve(torch.sigmoid(p), w) if bool(w.any()) else None for p, w in zip(predicted, wanted != 0, strict=True)
    ]


def threshold_counts(
    probability: Float[Tensor, "H W"], wanted: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, " thresholds"], Float[Tensor, " thresholds"]]:
    """How many pixels of a frame reach each of 255 thresholds, and how many of these are wanted."""
    thresholds = torch.linspace(0, 1 - 1e-10, THRESHOLDS, device=probability.device)
    reached = torch.bucketize(probability, thresholds, right=True)
    return _at_least(reached.flatten()), _at_least(reached[wanted])


def f_at(probability: Float[Tensor, "H W"], wanted: Bool[Tensor, "H W"], threshold: float = 0.5) -> float:
    """F of one frame at one threshold; 0 where nothing is found."""
    on = probability > threshold
    hits = float((on & wanted).sum())
    if not hits:
        return 0.0
    precision, recall = hits / float(on.sum()), hits / float(wanted.sum())
    return (1 + BETA2) * precision * recall / (BETA2 * precision + recall)


@dataclass(frozen=True)
class Scores:
    """What an evaluation found.

    miou        M_J over all frames
    fscore      M_F: the highest point of the mean F curve
    fscore_at   M_F at the fixed threshold 0.5, None in the official mode, which has no such figure
    frames      how many frames were seen; sounding  how many of them have a target
    """

    miou: float
    fscore: float
    fscore_at: float | None
    frames: int
    sounding: int


class OfficialScores:
    """The published evaluation: each batch is scored on its own and the batches are averaged, whatever their size."""

    def __init__(self) -> None:
        self._mious: list[float] = []
        self._fscores: list[float] = []
        self._frames = self._sounding = 0

    def update(self, logits: Logits, target: Mask) -> None:
        """Add one batch. The published figures have 4 clips in a batch, in file order."""
        self._mious.append(official_miou(logits, target))
        self._fscores.append(official_fscore(logits, target))
        wanted = _frames(target) != 0
        self._frames += len(wanted)
        self._sounding += int(wanted.any(2).any(1).sum())

    def compute(self) -> Scores:
        """The mean over the batches. Raises ConfigError before the first `update`."""
        if not self._mious:
            raise ConfigError("no batch was scored: the split is empty")
        batches = len(self._mious)
        return Scores(sum(self._mious) / batches, sum(self._fscores) / batches, None, self._frames, self._sounding)


class FrameScores:
    """Batch-independent scores: every frame weighs the same, in whatever batches it came. Sums are float64."""

    def __init__(self) -> None:
        self._iou = 0.0
        self._curve = torch.zeros(THRESHOLDS, dtype=torch.float64)
        self._f_at = 0.0
        self._frames = self._sounding = 0

    def update(self, logits: Logits, target: Mask) -> None:
        """Add some frames."""
        ious = frame_ious(logits, target)
        self._iou += float(ious.double().sum())
        self._frames += len(ious)
        predicted, wanted = _pair(logits, target)
        for p, w, curve in zip(predicted, wanted != 0, frame_f_curves(logits, target), strict=True):
            if curve is not None:
                self._curve += curve.double().cpu()
                self._f_at += f_at(torch.sigmoid(p), w)
                self._sounding += 1

    def compute(self) -> Scores:
        """The means over the frames; the F figures are 0 where no frame has a target."""
        if not self._frames:
            raise ConfigError("no frame was scored: the split is empty")
        sounding = max(self._sounding, 1)
        return Scores(
            miou=self._iou / self._frames,
            fscore=float((self._curve / sounding).max()),
            fscore_at=self._f_at / sounding,
            frames=self._frames,
            sounding=self._sounding,
        )


def _f_curve(probability: Float[Tensor, "H W"], wanted: Bool[Tensor, "H W"]) -> Float[Tensor, " thresholds"]:
    """F at each threshold, from counts: how many pixels, and how many wanted ones, reach each threshold."""
    found, hits = threshold_counts(probability, wanted)
    precision, recall = hits / (found + _TINY), hits / (wanted.sum().float() + _TINY)
    return ((1 + BETA2) * precision * recall / (BETA2 * precision + recall)).nan_to_num(nan=0.0)


def _at_least(reached: Tensor) -> Float[Tensor, " thresholds"]:
    """How many of the pixels reach each threshold, given how many thresholds each pixel reaches."""
    exactly = torch.bincount(reached, minlength=THRESHOLDS + 1)
    return exactly.flip(0).cumsum(0).flip(0)[1:].float()


def _pair(logits: Tensor, target: Tensor) -> tuple[Float[Tensor, "N H W"], Tensor]:
    """Both with all frames on one axis; the published arithmetic is float32."""
    predicted, wanted = _frames(logits).float(), _frames(target)
    if predicted.shape != wanted.shape:
        raise ConfigError(f"one mask a frame is needed: logits {tuple(logits.shape)}, target {tuple(target.shape)}")
    return predicted, wanted


def _frames(masks: Tensor) -> Tensor:
    """Clips, frames and a channel of one, all on one axis."""
    return masks.flatten(0, -3) if masks.ndim > 2 else masks[None]
