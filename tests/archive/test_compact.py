import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from avs_core import storage
from avs_core.archive import compact as compact_module
from avs_core.archive import merge, read
from avs_core.archive.compact import compact
from avs_core.archive.gc import gc
from avs_core.archive.ledger import load_ledger
from avs_core.archive.read import committed_files, open_archive, open_frames, open_videos
from avs_core.archive.verify import archive_digest, verify
from avs_core.clip import Unit
from avs_core.errors import CommitConflict, ConfigError, CorruptArchive, InputError
from tests.archive import sample
from tests.archive.crasher import crashing
from tests.archive.seeing import FRAME_ORDER, ORDER, fill, plain, seen


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
