"""Log-mels as AVSBench gives them out: tensors pickled by `pickle.dump`, read without running what is pickled.

A pickle may name any function of any module and have it called. Here nothing is looked up: a few names stand for
functions of this module that rebuild a tensor or an array, any other name is an error. `torch.storage._load_from_bytes`
is one of them: torch's own would unpickle the bytes of the storage without any restriction.
"""

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from avs_core.audio import EXAMPLE_FRAMES, MEL_BANDS
from avs_core.errors import DataError

MOST_BYTES = 2**26
"""A log-mel of 10 s has 250 kB."""

_ZIP = b"PK\x03\x04"
_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of torch.save's older format: its magic number, pickled."""

_FAULTS = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,
    TypeError,
    UnicodeDecodeError,
    ValueError,
    MemoryError,
)
"""What damaged bytes may raise in the unpickler or in a rebuilding function."""


def read_log_mel(data: bytes, path: str, seconds: int) -> Float32[np.ndarray, "T 1 96 64"]:
    """A log-mel of T = `seconds` examples, used as it is.

    Raises DataError for a pickle that names anything but a tensor or an array, for damaged bytes, another shape and
    values that are no numbers.
    """
    if len(data) > MOST_BYTES:
        raise DataError(f"a log-mel has at most {MOST_BYTES} bytes, {path} has {len(data)}: take its wav instead")
    try:
        found = _load_torch(data) if data.startswith((_ZIP, _TORCH_MAGIC)) else _Tensors(io.BytesIO(data), path).load()
    except _FAULTS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path} must be a pickled tensor ({reason}): take its wav instead, or copy it again"
        ) from error
    if not isinstance(found, Tensor | np.ndarray):
        raise DataError(
            f"{path} must hold one tensor or array, it holds a {type(found).__name__}: take its wav instead"
        )
    return _checked(found, path, seconds)


def _checked(found: Tensor | np.ndarray, path: str, seconds: int) -> Float32[np.ndarray, "T 1 96 64"]:
    wanted = (seconds, 1, EXAMPLE_FRAMES, MEL_BANDS)
    if tuple(found.shape) != wanted:
        raise DataError(f"a log-mel of this clip has the shape {wanted}, {path} has {tuple(found.shape)}: take its wav")
    values = found.detach().float().numpy() if isinstance(found, Tensor) else found
    if values.dtype.kind != "f":
        raise DataError(f"a log-mel holds floating-point numbers, {path} holds {values.dtype}: take its wav instead")
    if not np.isfinite(values).all():
        raise DataError(f"a log-mel must be finite, {path} holds NaN or infinity: take its wav instead")
    return np.ascontiguousarray(values, dtype=np.float32)


def _load_torch(data: bytes) -> Any:
    """What torch.save wrote, in its newer or older format."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """In place of `torch._utils._rebuild_tensor_v2`, which may also enlarge the storage."""
    flat = torch.tensor([], dtype=storage.dtype).set_(storage)
    return torch.as_strided(flat, tuple(size), tuple(stride), int(offset))


def _parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


def _storage(data: bytes) -> Any:
    """In place of `torch.storage._load_from_bytes`."""
    return _load_torch(data)


def _array(_: Any, shape: tuple[int, ...], kind: bytes) -> np.ndarray:
    """In place of numpy's `_reconstruct`: always an empty array, which the pickled state then fills."""
    return np.ndarray((0,), "b")


def _from_buffer(buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> np.ndarray:
    """In place of numpy's `_frombuffer`, of protocol 5."""
    if dtype.hasobject:
        raise pickle.UnpicklingError("an array of objects")
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")


def _dtype(name: str, *_: Any) -> np.dtype[Any]:
    """In place of `numpy.dtype`: no objects, whose pickled state could hold anything."""
    dtype = np.dtype(str(name))
    if dtype.hasobject:
        raise pickle.UnpicklingError("an array of objects")
    return dtype


def _encode(text: str, encoding: str) -> bytes:
    """In place of `_codecs.encode`, by which protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


class _ArrayType:
    """Stands for the class `numpy.ndarray`, which is an argument only."""


_ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}
"""Everything that a pickle may name, as the functions that are called for it."""


class _Tensors(pickle.Unpickler):
    """Rebuilds tensors and arrays, and refuses to look up anything else."""

    def __init__(self, file: io.BytesIO, path: str) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """What is called for a name. Raises DataError for one that isn't needed for a tensor."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(
                f"a log-mel must be a plain tensor; {self._path} wants to call {module}.{name}, which was not done: "
                f"don't trust this copy, take its wav instead"
            ) from None
