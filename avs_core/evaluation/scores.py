"""What one clip contributes to the figures: plain values, small enough to send, merged exactly in any order.

The figures themselves are made in `figures`, from the scores of all clips.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from avs_core.datasets.labelled import ClipRef, LabelledClip
from avs_core.errors import DataError
from avs_core.evaluation.predict import sounding_logits
from avs_core.metrics import BETA2, f_at, frame_f_curves, frame_ious, threshold_counts

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class ClassScore:
    """One class of a clip: Σ IoU and Σ F over the `frames` that show it or are said to show it."""

    iou: float
    f: float
    frames: int


@dataclass(frozen=True)
class ClipScore:
    """One clip, its L labelled frames in order. "At" means at the model's own threshold, "half" at probability 0.5.

    place        number of the clip in file order
    sounding     whether the truth of a frame is not empty
    iou          as published, at 0.5: an empty truth scores the share of its pixels that are rightly dark
    iou_at       the same at the model's threshold
    f_half       F of the sounding frames at 0.5, 0 elsewhere; f_at likewise
    false_area   share of the picture that is lit and shouldn't be
    curves       F of each sounding frame at 255 thresholds
    found, hits  pixels that reach each threshold, and the wanted ones of them, over all frames; wanted, pixels: of all
    classes      by class number, where both the truth and the answer have classes
    answered     False where an archive holds nothing about the clip: it counts as dark
    """

    place: int
    clip_id: str
    source_id: str
    setting: str
    categories: tuple[str, ...]
    sources: int | None
    subsets: tuple[str, ...]
    sounding: tuple[bool, ...]
    iou: tuple[float, ...]
    iou_at: tuple[float, ...]
    f_half: tuple[float, ...]
    f_at: tuple[float, ...]
    false_area: tuple[float, ...]
    curves: tuple[tuple[float, ...], ...]
    found: tuple[int, ...]
    hits: tuple[int, ...]
    wanted: int
    pixels: int
    classes: dict[int, ClassScore]
    answered: bool = True


def score_clip(
    place: int, clip: LabelledClip, logits: Float[Tensor, "T *K H W"], threshold: float, answered: bool = True
) -> ClipScore:
    """Score what was said of a clip against its labelled frames. Raises DataError for a clip without any."""
    labelled = torch.from_numpy(clip.labelled)
    if not bool(labelled.any()):
        raise DataError(
            f"a clip that is scored needs a labelled frame; {clip.ref.clip_id} of {clip.ref.split} has none"
        )
    target, said = torch.from_numpy(clip.masks)[labelled], logits[labelled]
    binary = sounding_logits(said).float()
    probability, sounding = torch.sigmoid(binary), target.flatten(1).any(1)
    shifted = binary - math.log(threshold / (1 - threshold))
    lit = probability > threshold
    counts = [threshold_counts(p, w) for p, w in zip(probability, target, strict=True)]
    found, hits = (torch.stack(column).double().sum(0).long().tolist() for column in zip(*counts, strict=True))
    ref = described(clip)
    return ClipScore(
        place=place,
        clip_id=ref.clip_id,
        source_id=ref.source_id,
        setting=ref.setting,
        categories=ref.categories,
        sources=ref.sources,
        subsets=ref.subsets,
        sounding=tuple(sounding.tolist()),
        iou=tuple(frame_ious(binary, target).tolist()),
        iou_at=tuple(frame_ious(shifted, target).tolist()),
        f_half=_f_of(probability, target, 0.5),
        f_at=_f_of(probability, target, threshold),
        false_area=tuple((lit & ~target).double().mean((1, 2)).tolist()),
        curves=tuple(tuple(curve.tolist()) for curve in frame_f_curves(binary, target) if curve is not None),
        found=tuple(found),
        hits=tuple(hits),
        wanted=int(target.sum()),
        pixels=target.numel(),
        classes=_classes(clip, said) if clip.labels is not None and said.ndim == 4 else {},
        answered=answered,
    )


def described(clip: LabelledClip) -> ClipRef:
    """The clip's reference, with what its objects tell where the reference says nothing."""
    ref, heard = clip.ref, [one for one in clip.instances or () if one.sounding.any()]
    if not clip.instances:
        return ref
    return ClipRef(
        ref.clip_id,
        ref.setting,
        ref.split,
        ref.source_id,
        ref.seconds,
        ref.labelled,
        ref.categories or tuple(sorted({one.category for one in heard})),
        len(heard) if ref.sources is None else ref.sources,
        ref.subsets,
    )


def _f_of(probability: Float[Tensor, "L H W"], target: Bool[Tensor, "L H W"], threshold: float) -> tuple[float, ...]:
    return tuple(f_at(p, w, threshold) if bool(w.any()) else 0.0 for p, w in zip(probability, target, strict=True))


def _classes(clip: LabelledClip, said: Float[Tensor, "L K H W"]) -> dict[int, ClassScore]:
    """As the published AVSS evaluation: IoU and F of each class in each frame, by pixel counts."""
    assert clip.labels is not None
    truth, K = torch.from_numpy(clip.labels[clip.labelled]), said.shape[1]
    if int(truth.max()) >= K:
        raise DataError(
            f"a model of {K} classes can't be scored on {clip.ref.clip_id}, which shows class {truth.max()}"
        )
    totals: dict[int, ClassScore] = {}
    for answer, wanted in zip(said.argmax(1), truth, strict=True):
        both, lit, there = (_counts(x, K) for x in (answer[answer == wanted], answer, wanted))
        either = lit + there - both
        iou = both / (either + _EPS)
        precision, recall = both / (lit + _EPS), both / (there + _EPS)
        f = (1 + BETA2) * precision * recall / (BETA2 * precision + recall + _EPS)
        for k in torch.nonzero(either).flatten().tolist():
            before = totals.get(k, ClassScore(0.0, 0.0, 0))
            totals[k] = ClassScore(before.iou + float(iou[k]), before.f + float(f[k]), before.frames + 1)
    return totals


def _counts(labels: Int64[Tensor, "..."], classes: int) -> Float[Tensor, " K"]:
    return torch.bincount(labels.flatten(), minlength=classes).double()
