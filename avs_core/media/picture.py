"""One decoded frame to one model input: scaled straight from its own pixel format, turned as it is displayed."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Shaped, UInt8

SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""swscale's bilinear widens its triangle when it shrinks, as Pillow's does: no aliasing, one pass from YUV.
The two flags make every processor give the same bytes."""


@dataclass(frozen=True)
class Turn:
    """How a decoded frame is laid out for display: transposed first, then mirrored."""

    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def degrees(self) -> int:
        """Counter-clockwise, as ffprobe prints it; a mere mirror image counts as 0 or 180."""
        if self.transposed:
            return 270 if self.mirror_x else 90
        return 180 if self.mirror_y else 0

    def apply(self, image: Shaped[np.ndarray, "h w ..."]) -> Shaped[np.ndarray, "h2 w2 ..."]:
        """The image as displayed."""
        if self.transposed:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


def turn_of(frame: VideoFrame) -> Turn:
    """From the display matrix, x' = a·x + c·y and y' = b·x + d·y; other angles are taken to the nearest quarter."""
    side_data = cast(SideDataContainer, frame.side_data)  # the stubs call it a dict of motion vectors
    matrices = [entry for entry in side_data if entry.type is SideDataType.DISPLAYMATRIX]
    if not matrices:
        return Turn()
    a, b, _, c, d = np.frombuffer(bytes(matrices[0]), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, a < 0, d < 0)
    return Turn(True, c < 0, b < 0)


def displayed_size(frame: VideoFrame, turn: Turn) -> tuple[int, int]:
    """(height, width) of the frame as displayed, in its own pixels."""
    return (frame.width, frame.height) if turn.transposed else (frame.height, frame.width)


class Painter:
    """Frames to RGB arrays of one size. Keeps swscale's tables between frames of one format."""

    def __init__(self, height: int, width: int) -> None:
        self._shape = height, width
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        """The frame as displayed, scaled without keeping its aspect ratio."""
        turn = turn_of(frame)
        height, width = self._shape[::-1] if turn.transposed else self._shape
        scaled = self._scaler.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=SCALING, threads=1
        )
        return np.ascontiguousarray(turn.apply(scaled.to_ndarray()))
