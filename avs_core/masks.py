"""Masks as COCO run-length encoding: exactly pycocotools' bytes, since pycocotools makes them.

An RLE lists the lengths of alternating runs of 0 and 1 down the columns, starting with 0, as a compressed string.
An archive's row holds `counts`, `height` and `width`; `from_row` makes an `Rle` of them:

    masks.decode(masks.from_row(row["counts"], row["height"], row["width"]))
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from pycocotools import mask as coco
from typing_extensions import TypedDict  # typing's own, before 3.12, is refused by pydantic

from avs_core.errors import InputError

_LONGEST = 10
"""Characters of a number: 50 bits, more than any picture has pixels."""


class Rle(TypedDict):
    """What pycocotools takes and gives: size [height, width] and the compressed runs."""

    size: list[int]
    counts: bytes


def encode(mask: Bool[np.ndarray, "H W"] | UInt8[np.ndarray, "H W"]) -> Rle:
    """The RLE of a mask (H, W), bool or uint8; every value but 0 counts as inside.

    Raises `InputError` for another dtype or shape.
    """
    if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        raise InputError(f"a mask must be (H, W) of bool or uint8, got {mask.shape} of {mask.dtype}")
    if 0 in mask.shape:
        raise InputError(f"a mask must have at least one pixel, got {mask.shape}")
    inside = np.asfortranarray(mask if mask.dtype == np.bool_ else mask != 0).view(np.uint8)
    encoded = coco.encode(inside)
    return Rle(size=[int(side) for side in encoded["size"]], counts=bytes(encoded["counts"]))


def from_row(counts: bytes, height: int, width: int) -> Rle:
    """The RLE that a row of an archive holds in three columns."""
    return Rle(size=[height, width], counts=counts)


def decode(rle: Rle) -> UInt8[np.ndarray, "H W"]:
    """The mask (H, W) of 0 and 1. Raises `InputError` when the runs do not fill the size exactly.

    Not by pycocotools, which leaves pixels undefined where runs are missing.
    """
    height, width = rle["size"]
    runs = _runs(rle["counts"])
    if runs is None or not _fill(runs, height * width):
        raise InputError(f"the runs of an RLE must fill its {height}×{width} pixels; {rle['counts'][:32]!r} do not")
    values = (np.arange(runs.size) & 1).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def is_valid(rle: Rle) -> bool:
    """Whether the runs are well formed and fill the size exactly."""
    runs = _runs(rle["counts"])
    return runs is not None and _fill(runs, rle["size"][0] * rle["size"][1])


def _fill(runs: Int64[np.ndarray, " runs"], pixels: int) -> bool:
    return bool((runs >= 0).all()) and int(runs.sum()) == pixels


def _runs(counts: bytes) -> Int64[np.ndarray, " runs"] | None:
    """The run lengths behind the string, None if it is not one.

    Characters hold 6 bits from 48 up: 5 of the number, lowest first, and one that says it goes on; a number's last
    character holds its sign in bit 4. From the fourth on, a number is the difference to the run two before.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not digits.size or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        return None
    ends = np.flatnonzero(digits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        return None
    place = np.arange(digits.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * place), starts)
    runs -= np.where(digits[ends] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def area(rle: Rle) -> int:
    """Pixels inside, counted on the runs."""
    return int(coco.area(rle))


def bbox(rle: Rle) -> tuple[int, int, int, int]:
    """(x0, y0, width, height) of the smallest box around the mask, pixels; zeros for an empty one."""
    x0, y0, width, height = (int(side) for side in coco.toBbox(rle))
    return x0, y0, width, height


def union(rles: list[Rle]) -> Rle:
    """Everything that is inside any of them. Raises `InputError` for none, or for different sizes."""
    _check_sizes(rles)
    merged = coco.merge(rles, intersect=False)
    return Rle(size=list(rles[0]["size"]), counts=bytes(merged["counts"]))


def iou(first: Rle, second: Rle) -> float:
    """Intersection over union in [0, 1]; 0 when both are empty, as pycocotools has it."""
    _check_sizes([first, second])
    return float(coco.iou([first], [second], [0])[0, 0])


def _check_sizes(rles: list[Rle]) -> None:
    sizes = {tuple(rle["size"]) for rle in rles}
    if len(sizes) != 1:
        raise InputError(f"masks that are combined must share one size, got {sorted(sizes) or 'no mask'}")


def ious(one: Sequence[Rle], other: Sequence[Rle]) -> Float64[np.ndarray, "n m"]:
    """IoU of each pair of two lists, neither of them empty."""
    found: Float64[np.ndarray, "n m"] = coco.iou(list(one), list(other), [0] * len(other))
    return found
