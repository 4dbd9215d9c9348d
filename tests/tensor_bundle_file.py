"""Writes checkpoints in TensorFlow's format, by its description: what `read_tensors` is tested with."""

import struct
from collections.abc import Mapping
from pathlib import Path

import torch


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def entry(tensor: torch.Tensor, at: int, kind: int = 1) -> bytes:
    """A BundleEntryProto; protobuf leaves out what is 0."""
    sizes = b"".join(b"\x12" + varint(len(size)) + size for size in (b"\x08" + varint(n) for n in tensor.shape))
    offset = b"\x20" + varint(at) if at else b""
    return b"\x08" + varint(kind) + b"\x12" + varint(len(sizes)) + sizes + offset + b"\x28" + varint(4 * tensor.numel())


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Entries that share the beginnings of their keys, one restart, no compression, and a checksum nobody reads."""
    out, before = b"", b""
    for key, value in pairs:
        shared = next(
            (i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), min(len(key), len(before))
        )
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + struct.pack("<II", 0, 1) + b"\0" + b"\1\2\3\4"


def write_tensors(prefix: Path, tensors: Mapping[str, torch.Tensor], kind: int = 1) -> Path:
    """Both files; `kind` is TensorFlow's number of the type, 1 = float32. Returns `prefix`."""
    pairs, numbers = [(b"", b"\x08\x01")], b""
    for name, tensor in sorted(tensors.items()):
        pairs.append((name.encode(), entry(tensor, len(numbers), kind)))
        numbers += tensor.contiguous().numpy().tobytes()
    data = block(pairs)
    index = block([(b"~", varint(0) + varint(len(data) - 5))])
    ends = varint(len(data)) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    footer = ends.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    prefix.with_name(f"{prefix.name}.index").write_bytes(data + index + footer)
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(numbers)
    return prefix
