"""Merged files that are written again: the order of their videos, silent ones, holes, and what older versions left."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from avs_core.archive import compact as compact_module
from avs_core.archive import merge, read
from avs_core.archive.compact import compact
from avs_core.archive.dead import choose_letters, retry_letters
from avs_core.archive.gc import gc
from avs_core.archive.merge import MergedReader
from avs_core.archive.read import open_archive, open_videos
from avs_core.archive.snapshots import MergedFile
from avs_core.archive.state import RunState
from avs_core.archive.verify import verify
from avs_core.archive.versions import as_versions
from avs_core.clip import Unit
from avs_core.errors import CorruptArchive
from tests.archive import sample
from tests.archive.seeing import fill, seen


@pytest.mark.parametrize("row_group", [3, 20_000])
def test_a_large_file_is_written_again_and_again(archive: str, row_group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more than half the target, that is: it is written again by itself, read by the places of its videos."""
    for module in (merge, read):
        monkeypatch.setattr(module, "ROW_GROUP", row_group)
    fill(archive, "abcdefgh")
    compact(archive)
    target = round(read.run_state(archive).files[0].bytes * 1.8)
    for name in "adg":
        fill(archive, name, version=2)
        before = seen(archive)
        compact(archive, target_bytes=target)
        assert seen(archive) == before
        for video in before.videos.to_pylist():
            rows, frames = open_videos(archive, None, [video["video_id"]])
            assert frames.count_rows() == video["seconds"]
            assert rows.count_rows() == before.rows.filter(pc.field("video_id") == video["video_id"]).num_rows
        assert verify(archive).problems == ()
    gc(archive, older_than_s=0.0)
    compact(archive)
    assert seen(archive) == before


@pytest.mark.parametrize("replaced", ["", "a", "bd"])
def test_a_file_in_another_order_than_its_manifest_is_told_of_and_mended(
    replaced: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions before this one could write it."""
    for module in (merge, read):
        monkeypatch.setattr(module, "ROW_GROUP", 7)
    plan = compact_module._plan

    def backwards(state: RunState, target: int) -> Any:
        made = plan(state, target)
        return replace(made, packages=[videos[::-1] for videos in made.packages])

    fill(uri := str(tmp_path / "backwards"))
    with monkeypatch.context() as patch:
        patch.setattr(compact_module, "_plan", backwards)
        patch.setattr(merge, "MergedFile", lambda **parts: MergedFile(**{**parts, "in_order": False}))
        compact(uri)
    rows, frames = verify(uri).problems
    assert "rows are not in the order" in rows
    assert "frames are not in the order" in frames
    with pytest.raises(CorruptArchive, match="avs compact"):
        open_videos(uri, None, [sample.video("a").video_id])
    fill(never := str(tmp_path / "never"))
    for archive in (uri, never):
        fill(archive, replaced, version=2)
    if replaced:
        with pytest.raises(CorruptArchive, match="avs compact"):
            open_archive(uri)
    compact(uri)
    gc(uri, older_than_s=0.0)  # the snapshot before says the wrong thing still
    assert seen(uri) == seen(never)
    assert verify(uri).problems == ()
    for name in "abcd":
        chosen = [sample.video(name).video_id]
        assert [part.count_rows() for part in open_videos(uri, None, chosen)] == [
            part.count_rows() for part in open_videos(never, None, chosen)
        ]


def test_rows_that_a_file_does_not_hold_are_missed(tmp_path: Path) -> None:
    """No compaction goes on without what the manifest counts."""
    fill(uri := str(tmp_path))
    compact(uri)
    (file,) = read.run_state(uri).files
    with ExitStack() as stack:
        reader = MergedReader(uri, file.data, stack)
        with pytest.raises(CorruptArchive, match="has 0, not 3"):
            reader.rows_of("0" * 16, 0, 3)
        with pytest.raises(CorruptArchive, match="has 6, not 7"):
            reader.rows_of(sample.video("a").video_id, 0, 7)


def silent(name: str, version: int = 1) -> Unit:
    """A unit of one second, in which nothing sounds: no rows."""
    return sample.units(sample.video(name, version), seconds=1)[0]


@pytest.mark.parametrize("row_group", [2, 20_000])
def test_a_video_in_which_nothing_sounds_may_lie_anywhere(
    archive: str, row_group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (merge, read):
        monkeypatch.setattr(module, "ROW_GROUP", row_group)
    writer = sample.opened(archive)
    for name in "aceg":
        assert not sample.commit(writer, silent(name)).data.rows
    fill(archive, "bdf")
    for name in ("h", "c", "e"):
        sample.commit(writer, silent(name, 2 if name == "c" else 1))
        compact(archive)
        before = seen(archive)
        fill(archive, "d", version=ord(name))
        compact(archive)
        assert seen(archive).rows.num_rows > before.rows.num_rows - 12
        assert seen(archive).videos.num_rows == before.videos.num_rows
        assert verify(archive).problems == ()


def test_merged_files_without_a_row_are_checked_each(tmp_path: Path) -> None:
    """Their rows are the same file; their frames are not."""
    writer = sample.opened(uri := str(tmp_path))
    for name in "ab":
        sample.commit(writer, silent(name))
    compact(uri, target_bytes=1)
    first, second = read.run_state(uri).files
    assert first.data.path == second.data.path
    assert (verify(uri).problems, verify(uri).notes) == ((), ())
    for file in (first, second):
        good = (tmp_path / file.frames.path).read_bytes()
        (tmp_path / file.frames.path).write_bytes(good[:-1])
        assert any(file.frames.path in problem for problem in verify(uri).problems)
        (tmp_path / file.frames.path).write_bytes(good)


@pytest.mark.parametrize("compacted", [False, True])
def test_a_cut_with_a_hole_gives_way_to_a_whole_one_of_the_same_version(archive: str, compacted: bool) -> None:
    writer = sample.opened(archive)
    *done, dead = sample.units(sample.video(), 4, seconds=3)
    for unit in done:
        sample.commit(writer, unit)
    writer.dead_letter(dead, "timeout", "slow disk", "decode")
    if compacted:
        compact(archive)
    retry_letters(archive, choose_letters(archive))
    for unit in sample.units(sample.video(), 2, seconds=6):
        sample.commit(writer, unit)
    for _ in range(2):
        assert seen(archive).videos["seconds"].to_pylist() == [12]
        compact(archive)
        gc(archive, older_than_s=0.0)
    assert verify(archive).problems == ()


@pytest.mark.parametrize("compacted", [False, True])
def test_an_object_that_was_uploaded_again_is_one_version_with_its_latest_time(archive: str, compacted: bool) -> None:
    """Its etag is the same on S3, and so is its fingerprint: the units before and after are units of one cut."""
    old, writer = sample.video(), sample.opened(archive)
    new = replace(old, modified_us=5_000_000)
    sample.commit(writer, sample.units(old, 2)[0])
    writer.dead_letter(sample.units(old, 2)[1], "timeout", "slow disk", "decode")
    if compacted:
        compact(archive)
    between = replace(sample.video(version=2), modified_us=2_000_000)
    sample.commit(writer, sample.units(between)[0])
    assert seen(archive).videos["fingerprint"].to_pylist() == [between.fingerprint]
    retry_letters(archive, choose_letters(archive))
    sample.commit(writer, sample.units(new, 2)[1])
    for _ in range(2):
        (shown,) = seen(archive).videos.to_pylist()
        assert (shown["fingerprint"], shown["modified_us"], shown["seconds"]) == (old.fingerprint, 5_000_000, 10)
        assert as_versions(archive, writer.run_key, [new]) == [new]  # readers see it: it was not put back again
        compact(archive)
    assert verify(archive).problems == ()


def test_a_snapshot_of_an_older_version_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not say that its files are in order; if they are, they stay."""
    fill(uri := str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(merge, "MergedFile", lambda **parts: MergedFile(**{**parts, "in_order": False}))
        compact(uri)
    (before,) = read.run_state(uri).files
    assert open_videos(uri, None, [sample.video("a").video_id])[1].count_rows() == 5
    fill(uri, "wxyz")
    compact(uri, target_bytes=before.bytes)
    kept = read.run_state(uri).files[0]
    assert kept == before.model_copy(update={"in_order": True})
