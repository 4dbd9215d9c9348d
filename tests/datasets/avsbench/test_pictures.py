"""Pictures and masks, by round trips and against Pillow's own reading."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from avs_core.datasets.avsbench import pictures
from avs_core.errors import DataError
from tests.avsbench_fixtures import png

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def opened(pixels: np.ndarray) -> Image.Image:
    return pictures.decode(png(pixels), "a.png")


def test_the_palette_is_pascal_vocs() -> None:
    """Colours that the development kit's documentation prints, and the last of AVSS by hand."""
    colours = pictures.palette()
    assert colours.shape == (71, 3)
    assert len({tuple(colour) for colour in colours.tolist()}) == 71
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 7: (128, 128, 128)}
    known |= {8: (64, 0, 0), 9: (192, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 64: (32, 0, 0), 70: (32, 128, 128)}
    assert {index: tuple(colours[index].tolist()) for index in known} == known


@given(arrays.arrays(np.int64, SHAPES, elements=st.integers(0, 70)))
def test_classes_survive_their_colours(classes: np.ndarray) -> None:
    assert np.array_equal(pictures.class_map(opened(pictures.palette()[classes]), "a.png"), classes)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 4), st.just(3))))
def test_any_other_colour_is_refused(colours: np.ndarray) -> None:
    known = {tuple(colour): index for index, colour in enumerate(pictures.palette().tolist())}
    expected = [[known.get(tuple(pixel)) for pixel in row] for row in colours.tolist()]
    if all(index is not None for row in expected for index in row):
        assert pictures.class_map(opened(colours), "a.png").tolist() == expected
    else:
        with pytest.raises(DataError, match=r"the colours of its 71 classes; a\.png holds"):
            pictures.class_map(opened(colours), "a.png")


def test_the_strange_colour_is_named() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[2, 3] = (128, 1, 0)
    with pytest.raises(DataError, match=r"labels/3.png holds \(128, 1, 0\) in 1 pixels"):
        pictures.class_map(opened(pixels), "labels/3.png")


@given(arrays.arrays(np.bool_, SHAPES))
def test_masks_survive(mask: np.ndarray) -> None:
    assert np.array_equal(pictures.binary_mask(opened(255 * mask.astype(np.uint8)), "a.png"), mask)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_masks_may_be_saved_in_several_modes(mode: str) -> None:
    mask = np.eye(6, dtype=bool)
    buffer = io.BytesIO()
    Image.fromarray(255 * mask.astype(np.uint8)).convert(mode).save(buffer, "PNG")
    assert np.array_equal(pictures.binary_mask(pictures.decode(buffer.getvalue(), "a"), "a"), mask)


@pytest.mark.parametrize("value", [1, 127, 254])
def test_masks_hold_0_and_255_only(value: int) -> None:
    pixels = np.zeros((5, 5), np.uint8)
    pixels[1, 1:3] = value
    with pytest.raises(DataError, match=f"a mask must hold 0 and 255 only; gt/a.png holds {value} in 2 pixels"):
        pictures.binary_mask(opened(pixels), "gt/a.png")


def test_masks_are_grey() -> None:
    pixels = np.zeros((5, 5, 3), np.uint8)
    pixels[..., 0] = 255
    with pytest.raises(DataError, match=r"holds \(255, 0, 0\) in 25 pixels"):
        pictures.binary_mask(opened(pixels), "a.png")


def test_masks_of_16_bits_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(buffer, "PNG")
    with pytest.raises(DataError, match="8 bits a channel"):
        pictures.binary_mask(pictures.decode(buffer.getvalue(), "a"), "a")


@given(arrays.arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 70)))
def test_resizing_by_whole_factors_takes_the_nearest(classes: np.ndarray) -> None:
    tripled = classes.repeat(3, 0).repeat(3, 1)
    side = min(classes.shape)
    square = classes[:side, :side]
    assert np.array_equal(pictures.resized_classes(tripled[: 3 * side, : 3 * side], side), square)
    assert set(pictures.resized_classes(classes, 7).ravel()) <= set(classes.ravel())


def test_a_mask_keeps_its_place_when_resized() -> None:
    mask = np.zeros((64, 128), dtype=bool)
    mask[:32, 64:] = True
    small = pictures.resized_mask(mask, 16)
    assert small.dtype == np.bool_
    assert np.array_equal(small, np.pad(np.ones((8, 8), bool), ((0, 8), (8, 0))))


def test_frames_are_squeezed_to_a_square() -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, 20:] = 200
    squeezed = pictures.frame(opened(picture), 10)
    assert squeezed.shape == (10, 10, 3)
    assert squeezed[:, :4].max() == 0
    assert squeezed[:, 6:].min() == 200


def test_sizes_must_agree() -> None:
    mask, shown = opened(np.zeros((8, 16), np.uint8)), opened(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"gt/a\.png is 16×8, the frame 8×8: take both from the same copy"):
        pictures.check_size(mask, shown, "gt/a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures_that_are_cut_off_are_refused(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(buffer, kind)
    whole = buffer.getvalue()
    pictures.decode(whole, "a")
    for length in (0, 7, 20, len(whole) // 2, len(whole) - 40):
        with pytest.raises(DataError, match="frames/0 can't be decoded"):
            pictures.decode(whole[:length], "frames/0")


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_picture_with_a_wrong_byte_is_read_or_refused(place: int, value: int) -> None:
    data = bytearray(png(np.arange(300, dtype=np.uint16).astype(np.uint8).reshape(10, 10, 3)))
    data[place % len(data)] = value
    with contextlib.suppress(DataError):
        assert pictures.decode(bytes(data), "a").size
