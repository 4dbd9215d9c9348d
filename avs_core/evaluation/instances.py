"""Which objects are found, and what they are called: COCO's average precision, by pycocotools.

A frame is an image of its own. *Seen* scores every object in the picture against the truth about all objects, *heard*
the same objects by how surely they sound against those that sound.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from avs_core import masks
from avs_core.datasets.labelled import LabelledClip
from avs_core.masks import Rle

SEEN = 0.005
"""Share of the picture below which an object is a scrap: nobody is asked for it, and who finds it is not wrong."""

BINS = 10
"""Of the calibration error."""

_HIT = 0.5


@dataclass(frozen=True)
class FrameObjects:
    """The n objects that a model sees in a frame.

    probabilities  of the K categories; sounding  how surely each is heard
    """

    masks: Bool[Tensor, "n H W"]
    probabilities: Float[Tensor, "n K"]
    sounding: Float[Tensor, " n"]


Find = Callable[[UInt8[Tensor, "1 T H W 3"], Float32[Tensor, "1 T ..."]], list[FrameObjects]]
"""The objects of each frame of a window, at the size of the frames."""


@dataclass(frozen=True)
class TrueObject:
    """An object of a frame; `scrap` where less than SEEN of the picture shows it."""

    category: str
    mask: Rle
    sounding: bool
    scrap: bool


@dataclass(frozen=True)
class FoundObject:
    """An object that a model sees; `score` of its category, `sounding` how surely it is heard."""

    category: str
    mask: Rle
    score: float
    sounding: float


@dataclass(frozen=True)
class FrameInstances:
    """The truth about one frame, and what was found in it."""

    truth: tuple[TrueObject, ...]
    found: tuple[FoundObject, ...]


@dataclass(frozen=True)
class InstanceFigures:
    """Of the objects that are no scraps.

    objects, sounding  how many there are, and how many of these sound
    ap, ap50           COCO's AP over IoU .5 to .95, and at .5, mean over the categories
    ap_any             AP whatever they are called
    recalled           share that some found object covers with IoU >= .5
    named              of these, share that it calls by their name
    heard_ap50         AP at IoU .5 of the sounding ones, by how surely what was found sounds, whatever it is called
    ece                how far the sounding scores of covered objects are from how often such objects sound
    reliability        of the scores of covered objects in each of BINS equal bins that has any: (their mean, the share
                       that sounds, how many there are)
    """

    objects: int
    sounding: int
    ap: float
    ap50: float
    ap_any: float
    recalled: float
    named: float
    heard_ap50: float
    ece: float
    reliability: tuple[tuple[float, float, int], ...]


def frame_instances(
    clip: LabelledClip, found: Sequence[FrameObjects], categories: Sequence[str]
) -> list[FrameInstances]:
    """The labelled frames of a clip whose objects are known, with what was found in all of its frames."""
    return [
        FrameInstances(tuple(_truth(clip, t)), tuple(_found(found[t], categories)))
        for t in np.flatnonzero(clip.labelled).tolist()
    ]


def instance_figures(frames: Iterable[FrameInstances]) -> InstanceFigures | None:
    """The figures of all frames; their order decides between equal scores alone. None where no object is known."""
    frames = list(frames)
    asked = [one for frame in frames for one in frame.truth if not one.scrap]
    if not asked:
        return None
    found = list(covered(frames))
    named = sum(one.category == that.category for one, that in found)
    bins = reliability([that.sounding for _, that in found], [one.sounding for one, _ in found])
    ap, ap50 = _average_precision(frames)
    return InstanceFigures(
        objects=len(asked),
        sounding=sum(one.sounding for one in asked),
        ap=ap,
        ap50=ap50,
        ap_any=_average_precision(frames, names=False)[0],
        recalled=len(found) / len(asked),
        named=named / len(found) if found else 0.0,
        heard_ap50=_average_precision(frames, names=False, heard=True)[1],
        ece=calibration_error(bins),
        reliability=tuple(bins),
    )


def _truth(clip: LabelledClip, t: int) -> Iterable[TrueObject]:
    for one in clip.instances or ():
        area = float(one.visible[t].mean())
        if area:
            yield TrueObject(one.category, masks.encode(one.visible[t]), bool(one.sounding[t]), area < SEEN)


def _found(frame: FrameObjects, categories: Sequence[str]) -> Iterable[FoundObject]:
    best, kinds = frame.probabilities.max(1) if len(frame.masks) else (torch.zeros(0), torch.zeros(0))
    for mask, score, kind, sounding in zip(frame.masks, best, kinds, frame.sounding, strict=True):
        if bool(mask.any()):
            rle = masks.encode(mask.cpu().numpy())
            yield FoundObject(categories[int(kind)], rle, float(score), float(sounding))


def covered(frames: Sequence[FrameInstances]) -> Iterator[tuple[TrueObject, FoundObject]]:
    """Every object that is no scrap and of which something covers enough, with what covers it best."""
    for frame in frames:
        truth = [one for one in frame.truth if not one.scrap]
        if truth and frame.found:
            overlap = masks.ious([one.mask for one in truth], [one.mask for one in frame.found])
            pairs = zip(truth, overlap.argmax(1), overlap.max(1) >= _HIT, strict=True)
            yield from ((one, frame.found[at]) for one, at, hit in pairs if hit)


def reliability(said: Sequence[float], happened: Sequence[bool]) -> list[tuple[float, float, int]]:
    """(mean of what was said, share that happened, how many) of each of BINS equal bins that holds anything."""
    p, y = np.asarray(said, float), np.asarray(happened, float)
    at = np.minimum((p * BINS).astype(int), BINS - 1)
    rows = [(p[at == b], y[at == b]) for b in range(BINS)]
    return [(float(one.mean()), float(other.mean()), len(one)) for one, other in rows if len(one)]


def calibration_error(bins: Sequence[tuple[float, float, int]]) -> float:
    """Expected calibration error, Σ_b n_b / n · |share that happened − mean of what was said|, of `reliability`.

    Naeini et al., AAAI 2015. 0 for nothing said.
    """
    count = sum(n for _, _, n in bins)
    return sum(n * abs(share - mean) for mean, share, n in bins) / count if count else 0.0


def _average_precision(
    frames: Sequence[FrameInstances], names: bool = True, heard: bool = False
) -> tuple[float, float]:
    """AP over IoU .5 to .95, and at .5; 0 where nothing was found."""
    known = {one.category for frame in frames for one in frame.truth} | {
        one.category for frame in frames for one in frame.found
    }
    kinds = {name: number if names else 1 for number, name in enumerate(sorted(known), 1)}
    annotations = [
        _row(image, kinds[one.category], one.mask) | {"iscrowd": int(one.scrap)}
        for image, frame in enumerate(frames, 1)
        for one in frame.truth
        if one.sounding or not heard
    ]
    found = [
        _row(image, kinds[one.category], one.mask) | {"score": one.sounding if heard else one.score}
        for image, frame in enumerate(frames, 1)
        for one in frame.found
    ]
    if not found or not annotations:
        return 0.0, 0.0
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [_image(number, frame) for number, frame in enumerate(frames, 1)],
        "categories": [{"id": kind} for kind in sorted(set(kinds.values()))],
        "annotations": [one | {"id": number} for number, one in enumerate(annotations, 1)],
    }
    # pycocotools tells what it does on standard output
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        scored = COCOeval(truth, truth.loadRes(found), "segm")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return tuple(max(0.0, float(value)) for value in scored.stats[:2])  # type: ignore[return-value]  # two of them


def _image(number: int, frame: FrameInstances) -> dict[str, Any]:
    sizes = [one.mask["size"] for one in frame.truth] + [one.mask["size"] for one in frame.found]
    height, width = sizes[0] if sizes else (1, 1)
    return {"id": number, "height": height, "width": width}


def _row(image: int, kind: int, mask: Rle) -> dict[str, Any]:
    return {"image_id": image, "category_id": kind, "segmentation": mask, "area": masks.area(mask)}
