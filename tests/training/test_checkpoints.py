"""A checkpoint is whole or not there: torn, damaged and half-deleted ones are never read; a full disk costs none."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avs_core.errors import StorageError
from avs_core.training.checkpoints import COMMIT, Checkpoints


def files(step: int, size: int = 100) -> dict[str, bytes]:
    return {"weights.safetensors": bytes([step]) * size, "state.pt": b"state %d" % step}


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The kernel refuses longer files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_newest_comes_back_and_old_ones_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    assert checkpoints.newest() is None
    for step in (1, 2, 3):
        assert checkpoints.save(step, files(step)) == checkpoints.folder(step)
    assert checkpoints.steps() == [2, 3]
    assert checkpoints.newest() == (3, files(3))
    assert not any(path.is_file() for path in Path(checkpoints.folder(1)).glob("*"))


@pytest.mark.parametrize("name", [COMMIT, "weights.safetensors", "state.pt"])
def test_one_that_lacks_a_file_is_torn(tmp_path: Path, name: str) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    for step in (1, 2):
        checkpoints.save(step, files(step))
    (Path(checkpoints.folder(2)) / name).unlink()
    assert checkpoints.newest() == (1, files(1))


def test_one_whose_bytes_differ_from_its_commit_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    for step in (1, 2):
        checkpoints.save(step, files(step))
    (Path(checkpoints.folder(2)) / "state.pt").write_bytes(b"state of another driver")
    assert checkpoints.newest() == (1, files(1))
    assert "differs from its commit" in caplog.text


def test_what_an_earlier_driver_left_torn_is_written_anew(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    checkpoints.save(4, files(4))
    (tmp_path / "checkpoint_00000008").mkdir()
    (tmp_path / "checkpoint_00000008" / "weights.safetensors").write_bytes(b"half")
    checkpoints.save(8, files(8))
    assert checkpoints.newest() == (8, files(8))
    assert set(json.loads((tmp_path / "checkpoint_00000008" / COMMIT).read_text())) == set(files(8))


def test_a_torn_one_of_a_later_step_is_cleared_away(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    (tmp_path / "checkpoint_00000009").mkdir()
    (tmp_path / "checkpoint_00000009" / "weights.safetensors").write_bytes(b"half")
    checkpoints.save(8, files(8))
    assert not list((tmp_path / "checkpoint_00000009").glob("*"))


def test_a_full_disk_is_an_error_and_leaves_the_one_before_whole(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    checkpoints.save(1, files(1))
    with files_limited_to(5000), pytest.raises(StorageError, match=r"could not write .*checkpoint_00000002"):
        checkpoints.save(2, files(2, size=10_000))
    assert checkpoints.newest() == (1, files(1))
    assert not list((tmp_path / "checkpoint_00000002").glob("*"))
