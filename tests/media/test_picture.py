"""Turning and scaling of single frames."""

import numpy as np
import pytest
from av.video.frame import VideoFrame
from PIL import Image

from avs_core.media.picture import Painter, Turn


@pytest.mark.parametrize(
    ("turn", "degrees", "want"),
    [
        (Turn(), 0, lambda image: image),
        (Turn(mirror_x=True, mirror_y=True), 180, lambda image: np.rot90(image, 2)),
        (Turn(transposed=True, mirror_y=True), 90, lambda image: np.rot90(image, 1)),
        (Turn(transposed=True, mirror_x=True), 270, lambda image: np.rot90(image, 3)),
        (Turn(mirror_x=True), 0, np.fliplr),
    ],
)
def test_turns_are_those_of_numpy(turn: Turn, degrees: int, want: object) -> None:
    image = np.arange(24).reshape(2, 4, 3)
    assert turn.degrees == degrees
    assert np.array_equal(turn.apply(image), want(image))  # type: ignore[operator]


def test_shrinking_does_not_alias() -> None:
    """A fine checkerboard becomes grey, as with Pillow; sampling points of it would not."""
    board = (np.indices((480, 640)).sum(axis=0) % 2 * 255).astype(np.uint8)
    frame = VideoFrame.from_ndarray(np.repeat(board[:, :, None], 3, axis=2), format="rgb24")
    small = Painter(112, 112)(frame)
    assert small.shape == (112, 112, 3)
    assert np.abs(small.astype(int) - 127).max() <= 6


def test_scaling_is_near_pillows() -> None:
    y, x = np.mgrid[:360, :640]
    image = np.stack([128 + 100 * np.sin(x / 23), 128 + 100 * np.cos(y / 17), (x + y) % 256], axis=2).astype(np.uint8)
    ours = Painter(224, 224)(VideoFrame.from_ndarray(image, format="rgb24")).astype(int)
    theirs = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ours - theirs).mean() < 1.5
