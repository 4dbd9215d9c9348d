"""What a browser draws: JPEGs at the source's aspect ratio, masks as SVG outlines, sound as an SVG curve.

An outline runs through the middles of the pixel edges that part inside from outside (marching squares at one half),
in half pixels: filled by the even-odd rule it covers exactly the centres of the mask's pixels.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from avs_core import masks
from avs_core.clip import AUDIO_RATE

BOX = (320, 240)
"""Width and height that a shown frame fits in, pixels."""

BINS_PER_SECOND = 20
BIN_SAMPLES = AUDIO_RATE // BINS_PER_SECOND

LONGEST_OUTLINE = 16_000
"""Characters. A mask that needs more (noise) is drawn at half the size, and so on."""

QUIETEST_SCALE = 0.05
"""The RMS that fills the curve's height is this or more (−26 dB of full scale): hiss is not drawn as loud."""

_RIGHT, _DOWN, _LEFT, _UP = range(4)
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))

Crack = tuple[int, int, int]
"""x, y of the corner where a pixel edge starts, and its direction; inside lies on its right hand."""


@dataclass(frozen=True)
class Outline:
    """SVG path data over a canvas of `width` × `height`, which is stretched over the picture."""

    path: str
    width: int
    height: int


def shown_size(height: int, width: int) -> tuple[int, int]:
    """(width, height) of a source frame on the page: its aspect ratio, inside `BOX`, never enlarged."""
    scale = min(BOX[0] / width, BOX[1] / height, 1.0)
    return max(1, round(width * scale)), max(1, round(height * scale))


def jpeg_uri(picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> str:
    """The picture, stretched to `size` (width, height), as a data URI."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def outline(rle: masks.Rle, size: tuple[int, int]) -> Outline:
    """The mask as an outline for a picture of `size` (width, height). Raises `InputError` for a damaged RLE."""
    mask = masks.decode(rle).astype(bool)
    width, height = size
    while True:
        path = trace(fit(mask, (width, height)))
        if len(path) <= LONGEST_OUTLINE or min(width, height) < 2:
            return Outline(path, 2 * width, 2 * height)
        width, height = width // 2, height // 2


def fit(mask: Bool[np.ndarray, "H W"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask at another size (width, height): inside where half of a pixel is; a speck stays visible."""
    if mask.shape[::-1] == size:
        return mask
    share = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX))
    return share >= min(128, max(1, int(share.max())))


def trace(mask: Bool[np.ndarray, "h w"]) -> str:
    """SVG path data around the mask, in half pixels; "" for an empty one. Pixels that touch at a corner stay apart."""
    return "".join(_path_data(ring) for ring in _rings(_cracks(mask)))


def _cracks(mask: Bool[np.ndarray, "h w"]) -> dict[Crack, None]:
    """The pixel edges between inside and outside, each once, in the order of their direction and place."""
    around = np.pad(mask, 1)
    inside = around[1:-1, 1:-1]
    borders = (
        (_RIGHT, inside & ~around[:-2, 1:-1], (0, 0)),
        (_DOWN, inside & ~around[1:-1, 2:], (1, 0)),
        (_LEFT, inside & ~around[2:, 1:-1], (1, 1)),
        (_UP, inside & ~around[1:-1, :-2], (0, 1)),
    )
    return {
        (x + dx, y + dy, direction): None
        for direction, border, (dx, dy) in borders
        for y, x in zip(*(axis.tolist() for axis in np.nonzero(border)), strict=True)
    }


def _rings(left: dict[Crack, None]) -> Iterator[list[Crack]]:
    """The closed walks along the cracks, turning right where two of them meet. Empties `left`."""
    while left:
        start = next(iter(left))
        ring, crack = [start], _next_crack(start, left)
        while crack != start:
            ring.append(crack)
            crack = _next_crack(crack, left)
        for walked in ring:
            del left[walked]
        yield ring


def _next_crack(crack: Crack, left: dict[Crack, None]) -> Crack:
    x, y, direction = crack
    dx, dy = _STEPS[direction]
    corner = x + dx, y + dy
    right, ahead, back = ((*corner, (direction + turn) % 4) for turn in (1, 0, 3))
    return right if right in left else ahead if ahead in left else back


def _path_data(ring: Sequence[Crack]) -> str:
    """`M` and the steps around a ring, equal ones in a row as one; `z` takes the last."""
    middles = [(2 * x + _STEPS[direction][0], 2 * y + _STEPS[direction][1]) for x, y, direction in ring]
    steps = [(x1 - x0, y1 - y0) for (x0, y0), (x1, y1) in zip(middles, middles[1:] + middles[:1], strict=True)]
    runs = [(dx * times, dy * times) for (dx, dy), times in ((step, len(list(same))) for step, same in groupby(steps))]
    numbers = "".join(f"{number: d}" for run in runs[:-1] for number in run)
    return f"M{middles[0][0]} {middles[0][1]}l{numbers}z"


def energy(waveform: Float32[np.ndarray, " n"], first: int, seconds: int) -> tuple[float, ...]:
    """RMS of the 16 kHz waveform in `BINS_PER_SECOND` bins a second, from sample `first` on; missing sound is 0."""
    bins = np.zeros(seconds * BINS_PER_SECOND * BIN_SAMPLES, np.float32)
    heard = waveform[max(first, 0) : max(first + bins.size, 0)]
    offset = max(-first, 0)
    bins[offset : offset + heard.size] = heard[: max(bins.size - offset, 0)]
    rms = np.sqrt(np.square(bins.reshape(-1, BIN_SAMPLES), dtype=np.float64).mean(axis=1))
    return tuple(np.clip(rms, 0.0, 1.0).round(4).tolist())


def curve(levels: Sequence[float]) -> str:
    """The levels as a closed SVG path, one unit a bin, mirrored about y = 0, the loudest at ±1; "" for none."""
    if not levels:
        return ""
    scale = max(QUIETEST_SCALE, *levels)
    above = [(index + 0.5, level / scale) for index, level in enumerate(levels)]
    points = [(0.0, 0.0), *above, (float(len(levels)), 0.0), *((x, -y) for x, y in reversed(above))]
    return "M" + "L".join(f"{x:g} {-y:.3g}" for x, y in points) + "z"
