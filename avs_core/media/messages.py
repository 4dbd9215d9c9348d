"""What passes between the decoding process and its guard: a JSON header and the raw bytes of its arrays.

    message = header length (4 bytes, big-endian) · header (UTF-8 JSON) · the arrays that it lists, in C order

Nothing that is read can execute anything. Faults travel by the name of their class in `avs_core.errors`.
"""

import io
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jaxtyping import Shaped

from avs_core import errors
from avs_core.clip import Clip, Unit, VideoRef
from avs_core.errors import AvsError
from avs_core.media.config import DecodeConfig

Header = dict[str, Any]
Arrays = dict[str, Shaped[np.ndarray, "..."]]
LENGTH = struct.Struct(">I")
ARRAYS = ("frames", "frame_index", "frame_time_us", "waveform")
MAX_HEADER = 1 << 20


def write_message(stream: io.BufferedIOBase, header: Header, arrays: Arrays | None = None) -> None:
    """Write one message and flush it."""
    arrays = arrays or {}
    listed = [[name, str(array.dtype), list(array.shape)] for name, array in arrays.items()]
    text = json.dumps(header | {"arrays": listed}).encode()
    stream.write(LENGTH.pack(len(text)) + text)
    for array in arrays.values():
        stream.write(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    stream.flush()


def read_message(read: Callable[[int], bytearray]) -> tuple[Header, Arrays]:
    """Read one message by `read(n)`, which returns exactly n bytes or raises EOFError."""
    (length,) = LENGTH.unpack(read(LENGTH.size))
    if length > MAX_HEADER:
        raise EOFError(f"a header of {length} bytes")
    header: Header = json.loads(read(length))
    arrays = {}
    for name, dtype, shape in header.pop("arrays"):
        kind = np.dtype(dtype)
        data = read(int(np.prod(shape)) * kind.itemsize)
        arrays[name] = np.frombuffer(data, dtype=kind).reshape(shape)
    return header, arrays


def clip_parts(clip: Clip) -> tuple[Header, Arrays]:
    """A clip as a header and arrays."""
    header = {
        "audio_start_s": clip.audio_start_s,
        "height": clip.height,
        "width": clip.width,
        "shown": clip.shown,
        "flags": list(clip.flags),
    }
    return header, {name: getattr(clip, name) for name in ARRAYS}


def clip_from_parts(header: Header, arrays: Arrays) -> Clip:
    """The inverse of `clip_parts`."""
    return Clip(
        audio_start_s=float(header["audio_start_s"]),
        height=int(header["height"]),
        width=int(header["width"]),
        shown=header["shown"],
        flags=tuple(header["flags"]),
        **{name: arrays[name] for name in ARRAYS},
    )


def unit_from_parts(header: Header) -> Unit:
    """A unit from `dataclasses.asdict`."""
    return Unit(**(header | {"video": VideoRef(**header["video"])}))


def config_parts(config: DecodeConfig) -> Header:
    """A config as JSON; the size becomes (height, width)."""
    return asdict(replace(config, size=config.shape))


def config_from_parts(header: Header) -> DecodeConfig:
    """The inverse of `config_parts`."""
    return DecodeConfig(**(header | {"size": tuple(header["size"]), "reach": tuple(header["reach"])}))


def fault_parts(fault: AvsError) -> Header:
    """An error of our own tree as a header."""
    return {"fault": type(fault).__name__, "message": str(fault)}


def fault_from_parts(header: Header) -> AvsError:
    """The inverse of `fault_parts`."""
    kind: type[AvsError] = getattr(errors, header["fault"])
    return kind(header["message"])
