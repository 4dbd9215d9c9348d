"""TensorFlow's checkpoint format, against files that are written here by its description."""

import struct
from pathlib import Path

import pytest
import torch

from avs_core.errors import CheckpointMismatch
from avs_core.training.tensor_bundle import read_tensors

TENSORS = {
    "layer/kernel": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4),
    "layer/scale": torch.tensor(7.5),
    "layer_with_a_long_name_that_shares_its_beginning/beta": torch.full((300,), -2.25),
}


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


def checkpoint(folder: Path, kind: int = 1) -> Path:
    pairs, numbers = [(b"", b"\x08\x01")], b""
    for name, tensor in sorted(TENSORS.items()):
        pairs.append((name.encode(), entry(tensor, len(numbers), kind)))
        numbers += tensor.numpy().tobytes()
    data = block(pairs)
    handle = varint(0) + varint(len(data) - 5)
    index = block([(b"~", handle)])
    ends = varint(len(data)) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    footer = ends.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    (folder / "variables.index").write_bytes(data + index + footer)
    (folder / "variables.data-00000-of-00001").write_bytes(numbers)
    return folder / "variables"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = read_tensors(checkpoint(tmp_path))
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_other_types_are_left_out(tmp_path: Path) -> None:
    assert read_tensors(checkpoint(tmp_path, kind=9)) == {}


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
@pytest.mark.parametrize("kept", [0, 30, 90])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, name: str, kept: int) -> None:
    prefix = checkpoint(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    with pytest.raises(CheckpointMismatch, match="no checkpoint of TensorFlow"):
        read_tensors(prefix)


def test_a_compressed_index_is_refused(tmp_path: Path) -> None:
    prefix = checkpoint(tmp_path)
    index = bytearray((tmp_path / "variables.index").read_bytes())
    index[index.index(b"\1\2\3\4") - 1] = 1
    (tmp_path / "variables.index").write_bytes(index)
    with pytest.raises(CheckpointMismatch, match="compressed"):
        read_tensors(prefix)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="no checkpoint of TensorFlow"):
        read_tensors(tmp_path / "variables")
