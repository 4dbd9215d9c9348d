import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from avs_core import masks
from avs_core.errors import InputError

small_masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


def naive_counts(mask: np.ndarray) -> bytes:
    """COCO's string from its definition: runs down the columns, deltas to the run two before, 5 bits a character."""
    runs, value = [0], 0
    for pixel in mask.T.ravel().astype(int):
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    text = bytearray()
    for index, run in enumerate(runs):
        number = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = number & 31
            number >>= 5
            more = number != (-1 if bits & 16 else 0)
            text.append(48 + bits + (32 if more else 0))
    return bytes(text)


def naive_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    if not len(xs):
        return 0, 0, 0, 0
    return int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1


EDGE_CASES = [
    np.zeros((3, 4), bool),
    np.ones((3, 4), bool),
    np.zeros((1, 1), bool),
    np.ones((1, 1), bool),
    np.eye(7, dtype=bool),
    np.ones((1, 50), bool),
    np.indices((9, 9)).sum(0) % 2 == 0,
    np.pad(np.ones((300, 2), bool), ((700, 80), (1, 900))),
]


@pytest.mark.parametrize("mask", EDGE_CASES, ids=lambda mask: "x".join(map(str, mask.shape)))
def test_the_bytes_are_those_of_the_definition(mask: np.ndarray) -> None:
    rle = masks.encode(mask)
    assert rle == {"size": list(mask.shape), "counts": naive_counts(mask)}
    np.testing.assert_array_equal(masks.decode(rle), mask)
    assert masks.area(rle) == mask.sum()
    assert masks.bbox(rle) == naive_box(mask)


@settings(max_examples=200, deadline=None)
@given(small_masks)
def test_any_mask_comes_back(mask: np.ndarray) -> None:
    rle = masks.encode(mask)
    assert rle["counts"] == naive_counts(mask) == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    back = masks.decode(masks.from_row(rle["counts"], *mask.shape))
    assert back.dtype == np.uint8
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, mask)
    np.testing.assert_array_equal(back, coco.decode(rle))
    assert (masks.area(rle), masks.bbox(rle)) == (mask.sum(), naive_box(mask))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_union_and_iou_are_those_of_the_pixels(data: st.DataObject) -> None:
    first = data.draw(small_masks)
    second = data.draw(hnp.arrays(np.bool_, first.shape))
    rles = [masks.encode(first), masks.encode(second)]
    np.testing.assert_array_equal(masks.decode(masks.union(rles)), first | second)
    both = (first | second).sum()
    assert masks.iou(*rles) == pytest.approx((first & second).sum() / both if both else 0.0)


def test_every_value_but_zero_is_inside() -> None:
    mask = np.array([[0, 1], [255, 7]], np.uint8)
    assert masks.encode(mask) == masks.encode(mask > 0)
    assert masks.encode(mask[:, ::-1]) == masks.encode(np.ascontiguousarray(mask[:, ::-1]))


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((2, 2), np.float32),
        np.zeros((2, 2), np.int64),
        np.zeros(4, bool),
        np.zeros((1, 2, 2), bool),
        np.zeros((0, 3), bool),
    ],
    ids=lambda mask: f"{mask.dtype}-{mask.shape}",
)
def test_other_arrays_are_refused(mask: np.ndarray) -> None:
    encode = inspect.unwrap(masks.encode)  # what runs outside the tests, without their type checks
    with pytest.raises(InputError, match="a mask must"):
        encode(mask)


@pytest.mark.parametrize("counts", [b"", b"0", b"99", b"~~~", b"\xff\xff", b"\x00", b"P", b"n" * 40 + b"0", b"O<"])
def test_runs_that_do_not_fill_the_picture_are_refused(counts: bytes) -> None:
    rle = masks.from_row(counts, 3, 4)
    assert not masks.is_valid(rle)
    with pytest.raises(InputError, match="fill"):
        masks.decode(rle)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=30), st.integers(1, 20), st.integers(1, 20))
def test_valid_means_that_the_string_says_a_whole_picture(counts: bytes, height: int, width: int) -> None:
    rle = masks.from_row(counts, height, width)
    if masks.is_valid(rle):
        again = masks.encode(masks.decode(rle))
        assert masks.area(again) == masks.area(rle)


def test_masks_of_different_sizes_do_not_mix() -> None:
    first, second = masks.encode(np.ones((2, 3), bool)), masks.encode(np.ones((3, 2), bool))
    for combine in (lambda: masks.union([first, second]), lambda: masks.iou(first, second), lambda: masks.union([])):
        with pytest.raises(InputError, match="share one size"):
            combine()
