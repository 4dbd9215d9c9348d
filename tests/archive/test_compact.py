import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from avs_core import storage
from avs_core.archive import compact as compact_module
from avs_core.archive import merge, read
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.compact import compact
from avs_core.archive.dead import choose_letters, retry_letters
from avs_core.archive.gc import gc
from avs_core.archive.ledger import load_ledger
from avs_core.archive.read import committed_files, open_archive, open_frames, open_tracks, open_videos, videos
from avs_core.archive.schema import FRAME_SCHEMA, ROW_SCHEMA
from avs_core.archive.snapshots import MergedFile
from avs_core.archive.state import RunState
from avs_core.archive.verify import archive_digest, verify
from avs_core.archive.versions import as_versions
from avs_core.clip import Unit
from avs_core.errors import CommitConflict, ConfigError, CorruptArchive, InputError
from tests.archive import sample
from tests.archive.crasher import crashing

ORDER = [("video_uri", "ascending"), ("object_id", "ascending"), ("frame_time_us", "ascending")]
FRAME_ORDER = [("video_uri", "ascending"), ("second", "ascending"), ("phase", "ascending")]


class Seen(NamedTuple):
    """All that a reader sees, in one order."""

    rows: pa.Table
    frames: pa.Table
    tracks: pa.Table
    videos: pa.Table


def plain(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("video_uri")
    return table.set_column(index, "video_uri", table["video_uri"].cast(pa.string())).combine_chunks()


def seen(uri: str, snapshot: int | None = None) -> Seen:
    rows = (instances := open_archive(uri, snapshot=snapshot)).to_table()
    frames = (looked := open_frames(uri, snapshot=snapshot)).to_table()
    assert (instances.count_rows(), looked.count_rows()) == (rows.num_rows, frames.num_rows)
    assert rows.schema == ROW_SCHEMA
    assert frames.schema == FRAME_SCHEMA
    return Seen(
        plain(rows).sort_by(ORDER),
        plain(frames).sort_by(FRAME_ORDER),
        open_tracks(uri, snapshot=snapshot),
        videos(uri, snapshot=snapshot),
    )


def fill(uri: str, names: str = "abcd", version: int = 1) -> ArchiveWriter:
    """A video a letter, cut into one, two or three units."""
    writer = sample.opened(uri)
    for number, name in enumerate(names):
        for unit in sample.units(sample.video(name, version), number % 3 + 1):
            sample.commit(writer, unit, seed=100 * version + 10 * number + unit.index)
    return writer


def test_rows_are_the_same_before_and_after(archive: str) -> None:
    fill(archive)
    before = seen(archive)
    done = compact(archive)
    assert (done.snapshot, done.units, done.files_written) == (1, 7, 1)
    assert seen(archive) == before
    assert seen(archive, 1) == before
    assert len(committed_files(archive)) == 1
    assert (verify(archive).problems, verify(archive).notes) == ((), ())


def test_a_merged_file_is_sorted_and_has_whole_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "ROW_GROUP", 7)
    fill(uri := str(tmp_path))
    compact(uri)
    (path,) = committed_files(uri)
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert groups[:-1] == [7] * (len(groups) - 1)
    assert len(groups) > 3
    rows = plain(pq.ParquetFile(path).read())
    assert rows.equals(rows.sort_by(ORDER))
    frames = open_frames(uri).to_table()
    assert frames.equals(frames.sort_by(FRAME_ORDER))


def test_videos_opened_alone_show_what_a_filter_shows(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "ROW_GROUP", 7)
    monkeypatch.setattr(read, "ROW_GROUP", 7)

    def compare(*names: str) -> None:
        chosen = [sample.video(name).video_id for name in names]
        found = open_videos(archive, None, chosen)
        for alone, whole in zip(found, (open_archive(archive), open_frames(archive)), strict=True):
            wanted = whole.filter(pc.field("video_id").isin(chosen)).to_table()
            order = [(name, "ascending") for name in ("video_id", "frame_time_us")]
            order += [("object_id", "ascending")] if "object_id" in wanted.column_names else []
            assert plain(alone.to_table()).sort_by(order).equals(plain(wanted).sort_by(order))

    for act in (fill, compact, lambda uri: fill(uri, "bd", version=2), compact):
        act(archive)
        for names in ("a", "b", "cd", "x"):
            compare(*names)


def test_videos_opened_alone_leave_the_row_groups_of_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "ROW_GROUP", 7)
    monkeypatch.setattr(read, "ROW_GROUP", 7)
    fill(uri := str(tmp_path))
    compact(uri)
    first, last = sample.video("a").video_id, sample.video("d").video_id
    before = open_videos(uri, None, [first])[0].to_table()
    (path,) = committed_files(uri)
    group = (metadata := pq.ParquetFile(path).metadata).row_group(metadata.num_row_groups - 1)
    columns = [group.column(number) for number in range(group.num_columns)]
    with Path(path).open("r+b") as file:
        for column in columns:
            file.seek(column.data_page_offset)
            file.write(b"\xff" * 8)
    assert open_videos(uri, None, [first])[0].to_table().equals(before)
    with pytest.raises(OSError, match="page header"):
        open_videos(uri, None, [last])[0].to_table()


def test_doing_it_again_changes_nothing(archive: str) -> None:
    fill(archive)
    compact(archive)
    before = archive_digest(archive)
    assert compact(archive).units == 0
    assert archive_digest(archive) == before


def test_only_what_is_small_is_written_again(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "ROW_GROUP", 5)
    fill(archive)
    size = sum(storage.info(path).size for path in committed_files(archive))
    compact(archive, target_bytes=size // 4)
    large = set(committed_files(archive)[:-1])
    assert large
    fill(archive, "wxyz")
    before = seen(archive)
    done = compact(archive, target_bytes=size // 4)
    assert large < set(committed_files(archive))
    assert done.snapshot == 2
    assert seen(archive) == before
    assert verify(archive).problems == ()


def test_half_done_videos_stay_as_they_are(archive: str) -> None:
    writer = fill(archive)
    first, second = sample.units(sample.video("half"), 2)
    sample.commit(writer, first)
    before = seen(archive)
    compact(archive)
    assert seen(archive) == before
    assert len(committed_files(archive)) == 2
    assert "s3://videos/half.mp4" not in seen(archive, 1).videos["video_uri"].to_pylist()
    sample.commit(writer, second)
    before = seen(archive)
    assert compact(archive).units == 2
    assert seen(archive) == before
    assert len(committed_files(archive)) == 1


@pytest.mark.parametrize("row_group", [3, 20_000])
def test_a_newer_version_replaces_merged_rows(archive: str, row_group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (merge, read):
        monkeypatch.setattr(module, "ROW_GROUP", row_group)
    fill(archive)
    compact(archive)
    old = seen(archive)
    fill(archive, "ab", version=2)
    now = seen(archive)
    assert now.videos["modified_us"].to_pylist() == [2_000_000, 2_000_000, 1_000_000, 1_000_000]
    fresh = [row for row in now.rows.to_pylist() if row["video_uri"] in ("s3://videos/a.mp4", "s3://videos/b.mp4")]
    assert len(fresh) == sum(commit.data.rows for commit in read.run_state(archive).pending)
    with pytest.raises(InputError, match="avs compact"):
        committed_files(archive)
    compact(archive)
    assert seen(archive) == now
    assert seen(archive, 1) == old
    assert verify(archive).problems == ()
    assert len(committed_files(archive)) == 1


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


def test_a_dead_unit_that_is_done_after_all_joins_its_video(archive: str) -> None:
    writer = fill(archive)
    first, second = sample.units(sample.video("z"), 2)
    sample.commit(writer, first)
    writer.dead_letter(second, "timeout", "slow disk", "decode")
    assert compact(archive).units == 8
    sample.commit(writer, second, seed=5)
    before = seen(archive)
    assert before.videos["seconds"].to_pylist()[-1] == 10
    assert compact(archive).files_written == 1
    assert seen(archive) == before
    assert verify(archive).problems == ()


def test_many_units_are_taken_up_in_rounds(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_module, "UNITS_A_ROUND", 2)
    fill(archive)
    fill(archive, "abc", version=2)
    before = seen(archive)
    done = compact(archive)
    assert done.snapshot > 2
    assert seen(archive) == before
    assert seen(archive, done.snapshot) == before
    assert compact(archive).snapshot == done.snapshot


def test_what_is_committed_stays_known(archive: str) -> None:
    writer = fill(archive)
    before = load_ledger(archive, writer.run_key)
    compact(archive)
    assert load_ledger(archive, writer.run_key) == before
    digest = archive_digest(archive)
    fill(archive)
    assert archive_digest(archive) == digest


def test_a_damaged_unit_file_is_not_merged(tmp_path: Path) -> None:
    fill(uri := str(tmp_path))
    Path(committed_files(uri)[0]).write_bytes(b"PAR1")
    with pytest.raises(CorruptArchive, match="SHA-256"):
        compact(uri)
    assert not (tmp_path / "_snapshots").exists()


def test_a_target_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1 byte"):
        compact(str(tmp_path), target_bytes=0)


# Crashes, races, readers


def prepared(uri: str) -> None:
    """Something of each kind: a merged file, a replaced video, a grown one, a new one."""
    writer = fill(uri, "ab")
    first, second = sample.units(sample.video("z"), 2)
    sample.commit(writer, first)
    writer.dead_letter(second, "timeout", "slow disk", "decode")
    compact(uri)
    fill(uri, "a", version=2)
    sample.commit(writer, second)
    fill(uri, "abc")


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_leaves_no_trace(archive: str, after: bool) -> None:
    def place(number: int) -> str:
        uri = f"{archive}-{number}"
        if archive.startswith("s3://"):
            prepared(uri)
        else:
            shutil.copytree(archive, uri)
        return uri

    prepared(archive)
    before = seen(archive)
    shutil.copytree(archive, f"{archive}-0") if not archive.startswith("s3://") else prepared(f"{archive}-0")
    compact(f"{archive}-0")
    undisturbed = archive_digest(f"{archive}-0")
    for died in crashing(compact, place, after):
        assert seen(died) == before
        assert verify(died).problems == ()
        compact(died)
        assert archive_digest(died) == undisturbed
        assert seen(died) == before


def test_of_many_compactors_one_wins_and_none_does_harm(archive: str) -> None:
    fill(archive)
    before = seen(archive)
    start = threading.Barrier(4)

    def work(_: int) -> int:
        start.wait()
        return compact(archive).snapshot

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(work, range(4))) == {1}
    assert seen(archive) == before
    assert verify(archive).problems == ()
    assert verify(archive).snapshots == 1


def test_the_loser_of_a_race_takes_up_the_rest(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(archive)
    publish, tries = compact_module.publish, []

    def overtaken(*args: Any) -> bool:
        tries.append(1)
        if len(tries) == 1:
            monkeypatch.setattr(compact_module, "publish", publish)
            compact(archive, target_bytes=1)
        return publish(*args)

    monkeypatch.setattr(compact_module, "publish", overtaken)
    before = seen(archive)
    assert compact(archive).snapshot == 2
    assert seen(archive) == before
    assert verify(archive).problems == ()


def test_a_compactor_that_never_wins_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(uri := str(tmp_path))
    monkeypatch.setattr(compact_module, "publish", lambda *args: False)
    with pytest.raises(CommitConflict, match="faster"):
        compact(uri)


def test_readers_see_the_same_rows_meanwhile(archive: str) -> None:
    fill(archive)
    opened, before = open_archive(archive), seen(archive)
    with ThreadPoolExecutor(1) as pool:
        for target in (1, 30_000, 1_000_000):
            done = pool.submit(compact, archive, None, target)
            while not done.done():
                assert seen(archive) == before
            done.result()
            assert seen(archive) == before
    assert plain(opened.to_table()).sort_by(ORDER) == before.rows


# Against an archive that is never compacted

ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.sampled_from("abcdefgh"), st.integers(1, 3), st.integers(0, 2)),
        st.tuples(st.just("dead"), st.sampled_from("abcdefgh"), st.integers(1, 3), st.integers(0, 2)),
        st.tuples(st.just("compact"), st.sampled_from([1, 12_000, 20_000, 1_000_000])),
        st.tuples(st.just("gc"), st.integers(1, 2)),
    ),
    max_size=24,
)


def act(uri: str, step: tuple[Any, ...]) -> None:
    writer = sample.opened(uri)
    kind, *rest = step
    if kind == "compact":
        compact(uri, target_bytes=rest[0])
    elif kind == "gc":
        gc(uri, keep_snapshots=rest[0], older_than_s=0.0)
    else:
        name, version, index = rest
        seconds = 1 if name in "gh" else 5  # in their first unit nothing sounds
        unit: Unit = sample.units(sample.video(name, version), 3, seconds)[index]
        if kind == "commit":
            sample.commit(writer, unit, seed=version * 10 + index)
        else:
            writer.dead_letter(unit, "timeout", "slow", "decode")


@pytest.mark.slow
@given(steps=ACTS, row_group=st.sampled_from([2, 5, 20_000]))
@hypothesis_settings(max_examples=15)
def test_compaction_never_changes_what_is_seen(
    steps: list[tuple[Any, ...]], row_group: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("property")
    one, other = str(folder / "one"), str(folder / "other")
    with pytest.MonkeyPatch.context() as patch:
        for module in (merge, read):
            patch.setattr(module, "ROW_GROUP", row_group)
        for uri in (one, other):
            sample.opened(uri)
        for step in steps:
            act(one, step)
            if step[0] in ("commit", "dead"):
                act(other, step)
            assert seen(one) == seen(other)
        compact(one)
        assert plain(open_archive(one).to_table()).num_rows == seen(other).rows.num_rows
        assert seen(one) == seen(other)
        assert verify(one).problems == ()
    shutil.rmtree(folder)
