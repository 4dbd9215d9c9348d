"""TensorFlow's checkpoints, read without TensorFlow: the float tensors of a SavedModel's `variables`.

A checkpoint is two files. `….data-00000-of-00001` holds the numbers, one tensor after the other; `….index` says where,
as a sorted string table in the format of LevelDB: blocks of (key, value) with shared beginnings of keys, the last of
which lists the others. A value is a BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto): the type 1, shape
2, offset 4 and size 5. TensorFlow writes these tables uncompressed.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avs_core.errors import CheckpointMismatch

_FOOTER, _MAGIC = 48, 0xDB4775248B80FB57
_FLOAT = 1
MAX_NAME = 4096
"""Bytes of a tensor's name: a table repeats names by their starts, so that few bytes may unpack to many."""

Fields = dict[int, list[int | bytes]]


def read_tensors(prefix: Path) -> dict[str, Tensor]:
    """Name → float32 tensor of `prefix`.index and its data file; what is not float32 is left out.

    Raises CheckpointMismatch for files that are no such checkpoint.
    """
    try:
        index = prefix.with_name(f"{prefix.name}.index").read_bytes()
        numbers = prefix.with_name(f"{prefix.name}.data-00000-of-00001").read_bytes()
        found = ((key, _fields(value)) for key, value in _entries(index) if key)
        tensors: dict[str, Tensor] = {}
        left = len(numbers)
        for name, fields in found:
            if _number(fields, 1) == _FLOAT:
                tensors[name.decode()] = made = _tensor(fields, numbers)
                left -= made.nbytes
                if left < 0:
                    raise ValueError(f"its tensors have more bytes than its {len(numbers)}")
        return tensors
    except (OSError, IndexError, struct.error, ValueError) as fault:
        raise CheckpointMismatch(f"{prefix} is no checkpoint of TensorFlow: {fault}") from fault


def _tensor(fields: Fields, numbers: bytes) -> Tensor:
    shape = [_number(_fields(_bytes(size)), 1) for size in _fields(_bytes(fields[2][0])).get(2, [])]
    start, size = _number(fields, 4), _number(fields, 5)
    if size != 4 * math.prod(shape) or start + size > len(numbers):
        raise ValueError(f"a tensor of {shape} takes {4 * math.prod(shape)} bytes, the index says {size} at {start}")
    return torch.from_numpy(np.frombuffer(numbers, "<f4", math.prod(shape), start).copy().reshape(shape))


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) of a whole table."""
    footer = table[-_FOOTER:]
    if len(table) < _FOOTER or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("the index does not end like a table")
    at = 0
    for _ in range(2):  # where the block of meta data is, and its size
        _, at = _varint(footer, at)
    start, at = _varint(footer, at)
    size, _ = _varint(footer, at)
    for _, handle in _block(table, start, size):
        first, after = _varint(handle, 0)
        yield from _block(table, first, _varint(handle, after)[0])


def _block(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if table[start + size]:
        raise ValueError("the index is compressed")
    block = table[start : start + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    at, key = 0, b""
    while at < len(block) - 4 - 4 * restarts:
        shared, at = _varint(block, at)
        added, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + added]
        if len(key) > MAX_NAME:
            raise ValueError(f"a name may have {MAX_NAME} bytes, one has {len(key)}")
        yield key, block[at + added : at + added + length]
        at += added + length


def _fields(message: bytes) -> Fields:
    """Number of a protobuf field → its values."""
    fields: Fields = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _varint(message, at)
        else:
            if tag & 7 == 2:
                size, at = _varint(message, at)
            else:
                size = {1: 8, 5: 4}.get(tag & 7, -1)
            if size < 0 or at + size > len(message):
                raise ValueError("an entry of the index is cut off")
            value, at = message[at : at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: Fields, name: int) -> int:
    """A whole number; protobuf leaves out a 0."""
    value = fields.get(name, [0])[0]
    if not isinstance(value, int):
        raise ValueError(f"field {name} of the index is no number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a message of the index is a number")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A protobuf integer, seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > 70:
            raise ValueError("an integer of the index has more than ten bytes")
        if byte < 128:
            return value, at
