"""Frames, binary masks and colour masks, strictly: what is no picture, or no mask, is an error that names the file."""

import io
import struct
import zlib
from functools import cache

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from avs_core.datasets.avsbench.metadata import CLASSES
from avs_core.errors import DataError

_FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for damaged files."""

_FLAT_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
MAX_PIXELS = 8192 * 4320
_LEVELS = 8
"""Values of a channel in the palette of fewer than 512 classes: the multiples of 32."""


def decode(data: bytes, path: str) -> Image.Image:
    """A picture, decoded whole. Raises DataError for one that is damaged, cut off, or larger than `MAX_PIXELS`."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"a picture may have at most {MAX_PIXELS} pixels; {path} has {image.width}×{image.height}: "
                    f"copy it again, or take its smaller version"
                )
            image.load()
            return image.copy()
    except _FAULTS as error:
        raise DataError(f"a picture must be whole; {path} can't be decoded ({error}): copy it again") from error


def frame(image: Image.Image, size: int) -> UInt8[np.ndarray, "S S 3"]:
    """RGB, squeezed to a square: bilinear, without keeping the aspect ratio."""
    picture = image.convert("RGB")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(picture)


def binary_mask(image: Image.Image, path: str) -> Bool[np.ndarray, "H W"]:
    """True where a mask of S4 or MS3 is white. Raises DataError for any value but 0 and 255."""
    if image.mode not in _FLAT_MODES:
        raise DataError(f"a mask must have 8 bits a channel; {path} has Pillow's mode {image.mode}: take the original")
    values = np.asarray(image.convert("RGB"))
    strange = ~((values == 0).all(-1) | (values == 255).all(-1))
    if strange.any():
        seen = np.unique(values[strange][:1000], axis=0)[:3]
        raise DataError(
            f"a mask must hold 0 and 255 only; {path} holds {', '.join(_shown(pixel) for pixel in seen)} in "
            f"{int(strange.sum())} pixels: it was resized or compressed, take the original"
        )
    return np.asarray(values[..., 0] == 255)


def _shown(pixel: UInt8[np.ndarray, "3"]) -> str:
    return str(int(pixel[0])) if len(set(pixel.tolist())) == 1 else str(tuple(pixel.tolist()))


def class_map(image: Image.Image, path: str) -> Int64[np.ndarray, "H W"]:
    """The class of each pixel of an AVSS colour mask, 0 = background. Raises DataError for a colour of no class."""
    colours = np.asarray(image.convert("RGB"))
    levels = colours >> 5
    classes: Int64[np.ndarray, "H W"] = _classes_by_level()[levels[..., 0], levels[..., 1], levels[..., 2]]
    strange = (classes < 0) | (colours & 31).any(-1)
    if strange.any():
        raise DataError(
            f"a colour mask must hold the colours of its {CLASSES} classes; {path} holds "
            f"{tuple(colours[strange][0].tolist())} in {int(strange.sum())} pixels: it was resized or compressed, take "
            f"the original"
        )
    return classes


def resized_mask(mask: Bool[np.ndarray, "H W"], size: int) -> Bool[np.ndarray, "S S"]:
    """A mask at size × size, by the nearest pixel."""
    return resized_classes(mask.astype(np.int64), size) > 0


def resized_classes(classes: Int64[np.ndarray, "H W"], size: int) -> Int64[np.ndarray, "S S"]:
    """A map of at most 256 classes at size × size, by the nearest pixel."""
    if classes.shape == (size, size):
        return classes
    image = Image.fromarray(classes.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
    return np.asarray(image).astype(np.int64)


def check_size(mask: Image.Image, shown: Image.Image, path: str) -> None:
    """Raises DataError unless a mask has the size of its frame."""
    if mask.size != shown.size:
        raise DataError(
            f"a mask must have the size of its frame; {path} is {mask.width}×{mask.height}, the frame "
            f"{shown.width}×{shown.height}: take both from the same copy"
        )


@cache
def palette() -> UInt8[np.ndarray, "71 3"]:
    """The colour of each class.

    The colour map of Pascal VOC (Everingham et al., 2010; VOClabelcolormap of its development kit), which AVSS uses:
    bits 0, 1, 2 of the index are the highest bits of red, green, blue; bits 3, 4, 5 the next ones; and so on.
    """
    colours = np.zeros((CLASSES, 3), np.uint8)
    for index in range(CLASSES):
        for bit in range(index.bit_length()):
            colours[index, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return colours


@cache
def _classes_by_level() -> Int64[np.ndarray, "8 8 8"]:
    """Class of the colour (r, g, b) / 32; −1 for none."""
    table = np.full((_LEVELS,) * 3, -1, np.int64)
    for index, (red, green, blue) in enumerate(palette() >> 5):
        table[red, green, blue] = index
    return table
