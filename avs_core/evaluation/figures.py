"""The figures of many clips, from their scores: official, batch-independent, by group, with confidence intervals.

Clips are sorted into file order first and all sums are float64, so neither the order in which workers answer nor
their number changes a digit.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from avs_core.errors import TrainingError
from avs_core.evaluation.scores import ClipScore
from avs_core.metrics import THRESHOLDS

OFFICIAL_BATCH = 4
"""Clips of a batch in the published evaluation."""

QUIET = 0.01
"""A frame whose lit share of the picture is above this counts as lit where nothing should be."""

DRAWS = 1000
"""Bootstrap samples."""

_SUMS = ("frames", "sounding", "iou", "iou_sounding", "iou_at", "iou_at_sounding", "f_half", "f_at", "false", "loud")

Sums = Float64[np.ndarray, "n k"]
Column = Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class Figures:
    """Means over frames; None where there is no frame of the kind. "At" = at the model's threshold, else at 0.5.

    miou, miou_at        M_J over all frames; an empty truth scores the share of its pixels that are rightly dark
    miou_sounding        over the frames in which something seen sounds, miou_sounding_at likewise
    fscore               M_F, β² = 0.3: the highest point of the mean F curve of the sounding frames
    f_half, f_at         M_F at one threshold
    empty_false_area     share of the picture that is lit in frames with an empty truth, at the model's threshold
    empty_dark           share of these frames in which at most 1 % is lit
    """

    frames: int
    sounding: int
    miou: float
    miou_sounding: float | None
    fscore: float | None
    f_half: float | None
    miou_at: float
    miou_sounding_at: float | None
    f_at: float | None
    empty_false_area: float | None
    empty_dark: float | None


MEASURED = tuple(field.name for field in fields(Figures))[2:]


@dataclass(frozen=True)
class Official:
    """The published figures: means over batches of 4 clips in file order; for classes see `official_classes`."""

    miou: float
    fscore: float


def ordered(scores: Iterable[ClipScore]) -> list[ClipScore]:
    """In file order. Raises TrainingError for none."""
    found = sorted(scores, key=lambda score: score.place)
    if not found:
        raise TrainingError("no clip was scored: the split is empty")
    return found


def overall(scores: Sequence[ClipScore]) -> Figures:
    """Over all frames of the clips."""
    sums = np.stack([_sums(score) for score in ordered(scores)]).sum(0)
    values = {name: _value(array[0]) for name, array in _measures(sums[None]).items()}
    return Figures(frames=int(sums[0]), sounding=int(sums[1]), **values)  # type: ignore[arg-type]  # None only where the field allows it


def official(scores: Sequence[ClipScore]) -> Official:
    """As the published evaluation of S4 and MS3 prints them; operation for operation in float32."""
    clips, mious, fscores = ordered(scores), [], []
    for first in range(0, len(clips), OFFICIAL_BATCH):
        batch = clips[first : first + OFFICIAL_BATCH]
        ious = torch.tensor([iou for clip in batch for iou in clip.iou])
        mious.append(float(ious.sum() / len(ious)))
        curves = [torch.tensor(curve) for clip in batch for curve in clip.curves]
        fscores.append(_highest_mean(curves) if curves else 0.0)
    return Official(sum(mious) / len(mious), sum(fscores) / len(fscores))


def official_classes(scores: Sequence[ClipScore], names: Sequence[str]) -> tuple[Official, dict[str, float]]:
    """AVSS as published: per class the means of IoU and F over the frames that show it or are said to show it.

    The first is the mean over all classes, those that no frame shows counting 0; the second M_J by class.
    """
    total = np.zeros((len(names), 3))
    for score in ordered(scores):
        for k, one in score.classes.items():
            total[k] += one.iou, one.f, one.frames
    means = total[:, :2] / np.maximum(total[:, 2:], 1)
    by_name = {name: float(means[k, 0]) for k, name in enumerate(names) if total[k, 2]}
    return Official(float(means[:, 0].mean()), float(means[:, 1].mean())), by_name


def grouped(scores: Sequence[ClipScore], names: Callable[[ClipScore], Iterable[str]]) -> dict[str, Figures]:
    """Figures of every group that a clip names itself a member of; a clip may be in several."""
    groups: dict[str, list[ClipScore]] = {}
    for score in ordered(scores):
        for name in names(score):
            groups.setdefault(name, []).append(score)
    return {name: overall(groups[name]) for name in sorted(groups)}


def precision_recall(scores: Sequence[ClipScore]) -> tuple[tuple[float, float], ...]:
    """(recall, precision) of all pixels of all frames at each of 255 thresholds, from the lowest on; () without truth.

    Where nothing reaches a threshold, precision is 1.
    """
    found = np.sum([score.found for score in scores], axis=0)
    hits = np.sum([score.hits for score in scores], axis=0)
    wanted = sum(score.wanted for score in scores)
    if not wanted:
        return ()
    precision = np.where(found > 0, hits / np.maximum(found, 1), 1.0)
    return tuple(zip((hits / wanted).tolist(), precision.tolist(), strict=True))


def intervals(
    scores: Sequence[ClipScore], seed: int = 0, draws: int = DRAWS, share: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over videos: clips of one source are drawn together (cluster bootstrap).

    Two frames of a video are no two observations; the interval says how the figure would move with other videos.
    """
    clusters: dict[str, np.ndarray] = {}
    for score in ordered(scores):
        clusters[score.source_id] = clusters.get(score.source_id, 0) + _sums(score)
    stacked, count = np.stack(list(clusters.values())), len(clusters)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    found, tail = {}, (1 - share) / 2
    for name, values in _measures(weights.astype(float) @ stacked).items():
        there = values[np.isfinite(values)]
        if len(there):
            low, high = np.quantile(there, (tail, 1 - tail))
            found[name] = (float(low), float(high))
    return found


def _sums(score: ClipScore) -> Float64[np.ndarray, " k"]:
    """What a clip adds to each sum of `_SUMS`, then to the F curve."""
    sounding = np.array(score.sounding)
    iou, iou_at, false = np.array(score.iou), np.array(score.iou_at), np.array(score.false_area)
    empty = ~sounding
    sums = [
        len(sounding),
        sounding.sum(),
        iou.sum(),
        iou[sounding].sum(),
        iou_at.sum(),
        iou_at[sounding].sum(),
        sum(score.f_half),
        sum(score.f_at),
        false[empty].sum(),
        (false[empty] > QUIET).sum(),
    ]
    curve = np.array(score.curves, float).reshape(-1, THRESHOLDS).sum(0)
    return np.concatenate([np.array(sums, float), curve])


def _measures(sums: Sums) -> dict[str, Column]:
    """The figures of each of n vectors of sums; NaN where there is no frame of the kind."""
    s = dict(zip(_SUMS, sums.T, strict=False))
    curve, empty = sums[:, len(_SUMS) :], s["frames"] - s["sounding"]
    return {
        "miou": _ratio(s["iou"], s["frames"]),
        "miou_sounding": _ratio(s["iou_sounding"], s["sounding"]),
        "fscore": _ratio(curve.max(-1), s["sounding"]),
        "f_half": _ratio(s["f_half"], s["sounding"]),
        "miou_at": _ratio(s["iou_at"], s["frames"]),
        "miou_sounding_at": _ratio(s["iou_at_sounding"], s["sounding"]),
        "f_at": _ratio(s["f_at"], s["sounding"]),
        "empty_false_area": _ratio(s["false"], empty),
        "empty_dark": 1 - _ratio(s["loud"], empty),
    }


def _ratio(total: Column, count: Column) -> Column:
    found = np.full(len(total), np.nan)
    np.divide(total, count, out=found, where=count > 0)
    return found


def _value(number: np.float64) -> float | None:
    return float(number) if np.isfinite(number) else None


def _highest_mean(curves: Sequence[Tensor]) -> float:
    """Of curves added one by one, as the published loop does."""
    total = curves[0]
    for curve in curves[1:]:
        total = total + curve
    return float((total / len(curves)).max())
