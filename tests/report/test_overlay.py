"""The outline is filled here by its definition, ray by ray, and must give back the mask."""

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from avs_core import masks
from avs_core.clip import AUDIO_RATE
from avs_core.report.overlay import BOX, LONGEST_OUTLINE, curve, energy, fit, jpeg_uri, outline, shown_size, trace

bitmaps = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans())


def rings(path: str) -> list[np.ndarray]:
    """The corners (n, 2) of each ring of a path."""
    assert re.fullmatch(r"(M\d+ \d+l[-\d ]+z)*", path)
    numbers = [[int(number) for number in re.findall(r"-?\d+", ring)] for ring in path.split("z")[:-1]]
    return [np.cumsum(np.array(ring).reshape(-1, 2), axis=0) for ring in numbers]


def filled(path: str, height: int, width: int) -> np.ndarray:
    """The even-odd rule at the pixel centres, which lie at odd half pixels: count the edges to the left."""
    inside = np.zeros((height, width), bool)
    y, x = 2 * np.mgrid[:height, :width] + 1
    for ring in rings(path):
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (min(y0, y1) <= y) & (y < max(y0, y1))
                inside ^= crosses & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x)
    return inside


@given(bitmaps)
def test_an_outline_filled_is_the_mask(mask: np.ndarray) -> None:
    assert (filled(trace(mask), *mask.shape) == mask).all()


@given(bitmaps)
def test_an_archived_mask_comes_back_from_its_overlay(mask: np.ndarray) -> None:
    drawn = outline(masks.encode(mask), mask.shape[::-1])
    assert (drawn.width, drawn.height) == (2 * mask.shape[1], 2 * mask.shape[0])
    assert (filled(drawn.path, *mask.shape) == mask).all()


def test_straight_runs_are_one_step() -> None:
    assert trace(np.ones((50, 80), bool)).count("l") == 1
    assert len(rings(trace(np.ones((50, 80), bool)))[0]) == 8  # four sides, four cut corners


def test_pixels_that_touch_at_a_corner_are_two_rings_and_a_hole_is_one_more() -> None:
    assert len(rings(trace(np.eye(2, dtype=bool)))) == 2
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert len(rings(trace(ring))) == 2
    assert trace(np.zeros((3, 3), bool)) == ""


def test_a_smaller_overlay_keeps_the_shape() -> None:
    y, x = np.mgrid[:1080, :1920]
    mask = (y - 500) ** 2 + (x - 900) ** 2 < 300**2
    drawn = outline(masks.encode(mask), (320, 180))
    back = filled(drawn.path, 180, 320).repeat(6, 0).repeat(6, 1)
    assert (back & mask).sum() / (back | mask).sum() > 0.98


def test_a_speck_stays_visible_when_it_is_made_smaller() -> None:
    mask = np.zeros((900, 1600), bool)
    mask[451, 801] = True
    small = fit(mask, (160, 90))
    assert small.sum() == 1
    assert small[45, 80]
    assert not fit(np.zeros_like(mask), (160, 90)).any()


def test_noise_is_drawn_coarser_rather_than_at_any_length() -> None:
    noise = np.random.default_rng(0).random((90, 120)) < 0.5
    assert len(trace(noise)) > LONGEST_OUTLINE
    drawn = outline(masks.encode(noise), (120, 90))
    assert 0 < len(drawn.path) <= LONGEST_OUTLINE
    assert drawn.width / drawn.height == pytest.approx(120 / 90, rel=0.05)


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_a_shown_frame_keeps_its_aspect_ratio_inside_the_box(height: int, width: int) -> None:
    shown_width, shown_height = shown_size(height, width)
    assert 1 <= shown_width <= BOX[0]
    assert 1 <= shown_height <= BOX[1]
    assert shown_width <= width
    assert abs(shown_width * height - shown_height * width) <= max(height, width)  # within a pixel


def test_a_jpeg_is_stretched_from_the_model_square_to_the_size() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 16:] = 255
    kind, _, data = jpeg_uri(picture, (320, 180)).partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (320, 180)
        assert image.getpixel((80, 90))[0] < 10
        assert image.getpixel((240, 90))[0] > 245


def test_energy_is_the_rms_of_each_twentieth_of_a_second() -> None:
    wave = np.full(AUDIO_RATE, 0.5, np.float32)
    wave[AUDIO_RATE // 2 :] = 0
    assert energy(wave, 0, 1) == (0.5,) * 10 + (0.0,) * 10
    sine = np.sin(2 * np.pi * 440 * np.arange(2 * AUDIO_RATE) / AUDIO_RATE).astype(np.float32)
    assert energy(sine, 0, 2) == pytest.approx((0.5**0.5,) * 40, abs=1e-3)


@pytest.mark.parametrize(("first", "expected"), [(-AUDIO_RATE, (0, 1, 0)), (0, (1, 0, 0)), (5 * AUDIO_RATE, (0, 0, 0))])
def test_energy_of_missing_sound_is_zero(first: int, expected: tuple[int, ...]) -> None:
    levels = energy(np.ones(AUDIO_RATE, np.float32), first, 3)
    assert levels[::20] == expected
    assert len(levels) == 60


def test_the_curve_reaches_one_at_its_loudest_and_stays_low_for_hiss() -> None:
    def highest(path: str) -> float:
        return max(abs(float(y)) for _, y in re.findall(r"(\S+) (\S+?)(?=[Lz])", path.removeprefix("M")))

    assert curve(()) == ""
    assert highest(curve((0.1, 0.4, 0.2))) == 1
    assert highest(curve((0.001, 0.002))) == pytest.approx(0.04)
    assert highest(curve((0.0, 0.0))) == 0
