from collections.abc import Callable
from pathlib import Path

import pytest

from avs_core import storage
from avs_core.archive.compact import compact
from avs_core.archive.gc import gc
from avs_core.archive.read import (
    committed_files,
    list_snapshots,
    open_archive,
    open_frames,
    open_tracks,
    runs,
    videos,
)
from avs_core.archive.snapshots import manifest_rows, open_snapshot, publish, snapshot_path
from avs_core.archive.verify import verify
from avs_core.errors import CorruptArchive, InputError
from tests.archive import sample
from tests.archive.test_compact import fill, seen


def key_of(uri: str) -> str:
    return next(iter(runs(uri)))


def test_an_older_snapshot_can_be_read(archive: str) -> None:
    fill(archive, "ab")
    first = seen(archive)
    compact(archive)
    fill(archive, "ac", version=2)
    second = seen(archive)
    compact(archive)
    fill(archive, "d")
    assert seen(archive, 1) == first
    assert seen(archive, 2) == second
    assert committed_files(archive, snapshot=1) != committed_files(archive, snapshot=2)
    assert list_snapshots(archive)["number"].to_pylist() == [1, 2]
    assert list_snapshots(archive)["units"].to_pylist() == [3, 6]
    assert list_snapshots(archive)["rows"].to_pylist() == [first.rows.num_rows, second.rows.num_rows]


@pytest.mark.parametrize("read", [open_archive, open_frames, open_tracks, videos, committed_files])
def test_a_snapshot_that_is_not_there_is_refused(tmp_path: Path, read: Callable[..., object]) -> None:
    fill(uri := str(tmp_path))
    with pytest.raises(InputError, match=r"has none, not 1"):
        read(uri, snapshot=1)
    compact(uri)
    with pytest.raises(InputError, match=r"has 1, not 7"):
        read(uri, snapshot=7)


def test_a_number_is_given_once(archive: str) -> None:
    fill(archive)
    compact(archive)
    opened = open_snapshot(archive, key_of(archive))
    assert opened is not None
    assert publish(archive, key_of(archive), 0, opened.snapshot.files, opened.manifest), "the same: it is ours"
    assert not publish(archive, key_of(archive), 0, (), manifest_rows(()))
    again = open_snapshot(archive, key_of(archive))
    assert again is not None
    assert again.snapshot == opened.snapshot


def test_a_damaged_manifest_is_not_read(tmp_path: Path) -> None:
    fill(uri := str(tmp_path))
    compact(uri)
    (manifest,) = (tmp_path / "_snapshots").rglob("*.parquet")
    manifest.write_bytes(manifest.read_bytes()[:-1] + b"!")
    with pytest.raises(CorruptArchive, match="manifest"):
        open_archive(uri)
    assert [problem for problem in verify(uri).problems if "manifest" in problem]


# What verify finds in merged files


@pytest.fixture
def merged(archive: str) -> str:
    """A compacted archive whose unit files are gone."""
    fill(archive)
    compact(archive)
    gc(archive, older_than_s=0.0)
    assert verify(archive).problems == ()
    return archive


def only(uri: str, folder: str) -> str:
    (found,) = [info.uri for info in storage.list_files(storage.join(uri, folder))]
    return found


@pytest.mark.parametrize("kind", ["data", "frames", "tracks"])
def test_a_flipped_byte_is_found(merged: str, kind: str) -> None:
    content = bytearray(storage.read_bytes(path := only(merged, kind)))
    content[len(content) // 2] ^= 1
    storage.write_bytes(path, bytes(content))
    (problem,) = verify(merged).problems
    assert storage.relative(path, merged) in problem
    assert "SHA-256" in problem


@pytest.mark.parametrize("kind", ["data", "frames", "tracks"])
def test_a_missing_file_is_found(merged: str, kind: str) -> None:
    storage.delete(path := only(merged, kind))
    (problem,) = verify(merged).problems
    assert f"{storage.relative(path, merged)}: missing" in problem


def test_a_file_that_nothing_lists_is_a_note(merged: str) -> None:
    path = f"_snapshots/run={key_of(merged)}/00000009-00.parquet"
    storage.write_bytes(storage.join(merged, path), b"of a compactor that died")
    report = verify(merged)
    assert report.problems == ()
    assert report.notes == (f"{path}: no commit and no snapshot lists it",)


def test_a_lost_snapshot_is_found(merged: str) -> None:
    storage.delete(storage.join(merged, snapshot_path(key_of(merged), 1)))
    assert len([problem for problem in verify(merged).problems if "missing" in problem]) == 14


def test_rows_that_the_commits_do_not_count_are_found(merged: str) -> None:
    opened = open_snapshot(merged, key := key_of(merged))
    assert opened is not None
    rows = opened.manifest.to_pylist()
    rows[0]["data_rows"] += 1
    rows[1]["unit_id"] = "0" * 16 + "-00000of00001"
    storage.delete(storage.join(merged, snapshot_path(key, 1)))
    changed = opened.manifest.from_pylist(rows, schema=opened.manifest.schema)
    assert publish(merged, key, 0, opened.snapshot.files, changed)
    problems = "\n".join(verify(merged).problems)
    assert "the commit says" in problems
    assert "there is no such commit" in problems
    assert f"rows of video {rows[0]['video_id']}" in problems


def test_two_runs_have_snapshots_of_their_own(archive: str) -> None:
    fill(archive)
    other = sample.opened(archive, sample.RECORD.model_copy(update={"model": "another"}))
    sample.commit(other, sample.units(sample.video())[0], seed=9)
    compact(archive, other.run_key)
    assert list_snapshots(archive, sample.opened(archive).run_key).num_rows == 0
    assert list_snapshots(archive, other.run_key)["files"].to_pylist() == [1]
    gc(archive, older_than_s=0.0)
    assert verify(archive).problems == ()
    assert verify(archive).commits == 8
