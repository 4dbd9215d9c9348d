"""TensorFlow's checkpoint format, against files that are written here by its description."""

from pathlib import Path

import pytest
import torch
from tensor_bundle_file import write_tensors

from avs_core.errors import CheckpointMismatch
from avs_core.training.tensor_bundle import read_tensors

TENSORS = {
    "layer/kernel": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4),
    "layer/scale": torch.tensor(7.5),
    "layer_with_a_long_name_that_shares_its_beginning/beta": torch.full((300,), -2.25),
}


def checkpoint(folder: Path, kind: int = 1) -> Path:
    return write_tensors(folder / "variables", TENSORS, kind)


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
