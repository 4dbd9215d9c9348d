"""Cut videos: the same rows whatever the cut and whoever comes first, whole or not at all, whatever dies."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from avs_core import storage
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.compact import compact
from avs_core.archive.dead import choose_letters, forget_replaced, retry_letters
from avs_core.archive.gc import gc
from avs_core.archive.ledger import dead_keys, load_ledger, video_keys
from avs_core.archive.numbering import Numbering
from avs_core.archive.read import open_archive, open_frames, read_commits
from avs_core.archive.schema import ROW_SCHEMA, FrameRow, frame_table, sighting_table
from avs_core.archive.staging import VideoWriter, as_begun
from avs_core.archive.verify import archive_digest, verify
from avs_core.clip import Unit
from avs_core.errors import CommitConflict, NotApplied
from avs_core.pipelines.units import cut, missing_units
from tests.archive import sample
from tests.archive.crasher import Crash, Crasher

SECONDS = 30
HEIGHT, WIDTH = 36, 64
DOG_LEAVES, CAT_COMES = 12, 9
FPS, SILENT = 25, 3


def seen_at(second: int) -> list[tuple[str, np.ndarray]]:
    """A dog that goes right and leaves, comes back much later; from a while on, a cat; the surest first."""
    picture = []
    if not DOG_LEAVES <= second < 22:
        dog = np.zeros((HEIGHT, WIDTH), bool)
        dog[8:24, second : second + 16] = True
        picture.append(("dog", dog))
    if second >= CAT_COMES:
        cat = np.zeros((HEIGHT, WIDTH), bool)
        cat[26:34, 40:60] = True
        picture.insert(second % 2 * len(picture), ("cat", cat))
    return picture


def frame(second: int, unit: Unit) -> FrameRow:
    """As a segmenter tells of it: object 0, and the others in the order of their certainty; counted from the unit's."""
    seen = seen_at(second)
    whole = [sample.instance(np.logical_or.reduce([mask for _, mask in seen]))] if seen else []
    objects = [sample.instance(mask, number, kind) for number, (kind, mask) in enumerate(seen, 1)]
    index, time_us = (second - unit.start_s) * FPS + 23, second * 1_000_000 + 920_000
    flags = told(unit)[0]
    return FrameRow(second, 0, index, time_us, HEIGHT, WIDTH, True, flags, (*whole, *objects))


def tables(unit: Unit) -> tuple[pa.Table, pa.Table]:
    """What the unit saw, and its frames."""
    frames = [frame(second, unit) for second in range(unit.start_s, unit.stop_s)]
    return sighting_table(unit.video, frames), frame_table(unit.video, frames)


def told(unit: Unit) -> tuple[tuple[str, ...], int]:
    """Its flags, and how many frames are first shown in it."""
    flags = {"resolution_change"} if unit.stop_s > CAT_COMES else set()
    flags |= {"audio_padded"} if unit.start_s <= SILENT < unit.stop_s else set()
    return tuple(sorted(flags)), FPS * (unit.stop_s - unit.start_s)


def bring(archive: str, units: Iterable[Unit]) -> ArchiveWriter:
    """Finish the units in this order."""
    writer = sample.opened(archive)
    for unit in units:
        VideoWriter(writer).finish(unit, *tables(unit), *told(unit))
    return writer


def rows(archive: str) -> list[dict[str, object]]:
    """What readers see, in one order."""
    found = open_archive(archive).to_table().sort_by([("object_id", "ascending"), ("frame_time_us", "ascending")])
    listed: list[dict[str, object]] = found.to_pylist()
    return listed


def units(seconds: int = 10) -> list[Unit]:
    return cut(sample.video(), SECONDS, seconds)


def test_objects_keep_their_numbers_through_the_units_of_a_video(archive: str) -> None:
    bring(archive, units())
    tracks: dict[object, list[int]] = {}
    for row in rows(archive):
        tracks.setdefault((row["object_id"], row["category"]), []).append(int(str(row["frame_time_us"])) // 1_000_000)
    assert tracks == {
        (0, None): list(range(SECONDS)),
        (1, "dog"): list(range(DOG_LEAVES)),
        (2, "cat"): list(range(CAT_COMES, SECONDS)),
        (3, "dog"): list(range(22, SECONDS)),
    }
    assert open_frames(archive).count_rows() == SECONDS
    assert verify(archive).problems == ()


@pytest.mark.parametrize("seconds", [5, 15, 20])
def test_rows_do_not_depend_on_the_cut(tmp_path: Path, seconds: int) -> None:
    bring(str(tmp_path / "whole"), units(SECONDS))
    bring(str(tmp_path / "cut"), units(seconds))
    assert rows(str(tmp_path / "cut")) == rows(str(tmp_path / "whole"))
    cut_frames, frames = (open_frames(str(tmp_path / name)).to_table().sort_by("second") for name in ("cut", "whole"))
    assert cut_frames.to_pylist() == frames.to_pylist()
    assert frames["frame_index"].to_pylist() == list(range(23, FPS * SECONDS, FPS))
    assert set(frames["flags"].to_pylist()) == {"audio_padded,resolution_change"}


def test_nobody_knows_how_many_frames_a_dead_unit_has(archive: str) -> None:
    first, middle, last = units()
    writer = bring(archive, [first, last])
    VideoWriter(writer).give_up(middle, "corrupt", "a frame", "decode")
    frames = open_frames(archive).to_table().sort_by("second")
    assert frames["frame_index"].to_pylist() == [*range(23, FPS * 10, FPS), *[-1] * 10]
    assert {row["frame_index"] for row in rows(archive) if int(str(row["frame_time_us"])) > 20_000_000} == {-1}
    assert retry_letters(archive, choose_letters(archive)) == 1
    bring(archive, [middle])
    counted = open_frames(archive).to_table().sort_by("second")["frame_index"].to_pylist()
    assert counted[:20] == list(range(23, FPS * 20, FPS))


def test_nor_the_archive_on_who_comes_first(tmp_path: Path) -> None:
    digests = set()
    for number, order in enumerate(permutations(units())):
        bring(str(tmp_path / str(number)), order)
        digests.add(archive_digest(str(tmp_path / str(number))))
    assert len(digests) == 1


def test_nothing_shows_before_all_is_there_and_nothing_is_left_behind(archive: str) -> None:
    writer = bring(archive, units()[1:])
    assert open_archive(archive).count_rows() == 0
    assert not list(storage.list_files(storage.join(archive, "data")))
    assert len(load_ledger(archive, writer.run_key).staged) == 2
    assert verify(archive).problems == ()
    bring(archive, units()[:1])
    assert len(read_commits(archive)) == 3
    assert not list(storage.list_files(storage.join(archive, "_staged")))


def test_doing_a_unit_again_changes_nothing_and_otherwise_is_a_conflict(archive: str) -> None:
    writer = bring(archive, units())
    before = archive_digest(archive)
    bring(archive, units())
    assert archive_digest(archive) == before
    first, second, _ = units()
    with pytest.raises(CommitConflict, match=first.unit_id):
        VideoWriter(writer).finish(first, *tables(second), *told(second))
    other = ArchiveWriter(archive, sample.RECORD.model_copy(update={"model": "other"}))
    other.open_run()
    VideoWriter(other).finish(first, *tables(first), *told(first))
    with pytest.raises(CommitConflict, match=first.unit_id):
        VideoWriter(other).finish(first, *tables(second), *told(second))


def test_a_last_unit_that_is_done_otherwise_after_its_worker_died_is_published_as_it_was(archive: str) -> None:
    writer = sample.opened(archive)
    for unit in units():
        writer.stage_unit(unit, *tables(unit), *told(unit))  # and nobody lived to publish them
    first, _, last = units()
    with pytest.raises(CommitConflict, match=last.unit_id):
        VideoWriter(writer).finish(last, *tables(first), *told(last))
    assert len(read_commits(archive)) == 3
    assert open_frames(archive).count_rows() == SECONDS


def test_the_others_wait_for_one_whose_file_the_store_may_yet_show(tmp_path: Path) -> None:
    first, middle, last = units()
    refused, undisturbed = str(tmp_path / "refused"), str(tmp_path / "undisturbed")
    writer = bring(refused, [first, last])
    VideoWriter(writer).give_up(middle, "denied", "403", "decode")
    assert not read_commits(refused)
    ledger = load_ledger(refused, writer.run_key, "the decoder")
    assert (video_keys(ledger).begun, video_keys(ledger).dead) == ({middle.video.video_key}, set())
    assert dead_keys(ledger) == {middle.video.video_key}
    bring(refused, [middle])
    bring(undisturbed, units())
    assert load_ledger(refused, writer.run_key).overruled == {middle.unit_id}
    forget_replaced(refused, writer.run_key, ledger.doubtful)
    assert archive_digest(refused) == archive_digest(undisturbed)
    assert dead_keys(load_ledger(refused, writer.run_key, "the decoder")) == set()


def test_the_others_wait_no_more_once_the_file_shows_itself_broken(archive: str) -> None:
    first, middle, last = units()
    writer = bring(archive, [first, last])
    VideoWriter(writer).give_up(middle, "denied", "403", "decode")
    VideoWriter(writer).give_up(middle, "corrupt", "a packet", "decode")
    assert {commit.unit_id for commit in read_commits(archive)} == {first.unit_id, last.unit_id}


def test_the_others_do_not_wait_for_the_dead_and_one_that_comes_late_takes_their_numbers_up(archive: str) -> None:
    first, middle, last = units()
    writer = bring(archive, [first, last])
    VideoWriter(writer).give_up(middle, "timeout", "too slow", "decode")
    assert {commit.unit_id for commit in read_commits(archive)} == {first.unit_id, last.unit_id}
    assert {row["object_id"] for row in rows(archive)} == {0, 1, 2, 3, 4}
    bring(archive, [middle])
    found = rows(archive)
    assert [row["category"] for row in found if row["object_id"] == 2] == ["cat"] * 11, "from the unit before it on"
    assert len(found) == len({(row["object_id"], row["frame_time_us"]) for row in found})
    assert not list(storage.list_files(storage.join(archive, "_staged")))


def test_a_frame_that_is_looked_at_twice_counts_twice() -> None:
    """The end of a slow video stands for several seconds: one time, and objects that may be found in one of them."""
    still = [frame(10, units(SECONDS)[0])] * 2
    looks = [FrameRow(**{**vars(one), "second": 10 + place}) for place, one in enumerate(still)]
    fewer = FrameRow(**{**vars(looks[0]), "instances": looks[0].instances[:2]})
    table = Numbering().number(sighting_table(sample.video(), [fewer, looks[1]]))
    assert table.schema.equals(ROW_SCHEMA)
    assert table["object_id"].to_pylist() == [0, 0, 1, 1, 2]
    assert table["category"].to_pylist() == [None, None, "cat", "cat", "dog"]


def test_many_who_bring_units_at_once_publish_one_video(archive: str, tmp_path: Path) -> None:
    parts = units(5)
    bring(str(tmp_path / "alone"), parts)
    sample.opened(archive)
    start = threading.Barrier(len(parts) * 2)

    def work(unit: Unit) -> None:
        start.wait()
        VideoWriter(ArchiveWriter(archive, sample.RECORD)).finish(unit, *tables(unit), *told(unit))

    with ThreadPoolExecutor(len(parts) * 2) as pool:
        list(pool.map(work, parts * 2))
    writer = ArchiveWriter(archive, sample.RECORD)
    ledger = load_ledger(archive, writer.run_key)
    assert ledger.committed == {unit.unit_id for unit in parts}
    VideoWriter(writer).sweep(ledger)  # who comes last may stage once more what is published
    assert archive_digest(archive) == archive_digest(str(tmp_path / "alone"))


CALLS = ("put_if_absent", "read_bytes", "is_file", "list_files", "delete")


def job(archive: str, parts: Sequence[Unit]) -> None:
    """As the main job does it: sweep, what is missing, or what nobody has published."""
    writer = sample.opened(archive)
    ledger = load_ledger(archive, writer.run_key)
    VideoWriter(writer).sweep(ledger)
    missing = [unit for unit in parts if unit.unit_id not in ledger.committed | ledger.staged | ledger.dead]
    for unit in missing:
        VideoWriter(writer).finish(unit, *tables(unit), *told(unit))
    if not missing and {unit.unit_id for unit in parts} - ledger.committed:
        VideoWriter(writer).publish(parts[-1])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_of_the_store_leaves_no_trace(
    archive: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = units(15)
    job(archive, parts)
    undisturbed = archive_digest(archive)
    for number in range(1, 200):
        place = f"{archive}-{number}"
        crasher = Crasher(number, after)
        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(storage, name, crasher.wrap(getattr(storage, name)))
            try:
                job(place, parts)
            except Crash:
                pass
            else:
                break
        job(place, parts)
        assert archive_digest(place) == undisturbed, f"call {number}"
    assert number > 40


def test_a_dead_unit_is_done_after_its_video_was_merged_and_the_unit_files_are_gone(archive: str) -> None:
    """Its neighbours' rows are in a merged file by then: its objects follow theirs all the same."""
    apart, whole = sample.opened(f"{archive}-apart"), sample.opened(f"{archive}-whole")
    units = sample.units(sample.video(), 3)
    publisher = VideoWriter(apart)
    for unit in (units[0], units[2]):
        publisher.finish(unit, *sample.sightings(unit))
    publisher.give_up(units[1], "timeout", "stood still", "decode")
    compact(apart.uri)
    gc(apart.uri, older_than_s=0.0, now_s=4e9)
    assert not list(storage.list_files(f"{apart.uri}/data/run={apart.run_key}/shard={units[0].shard}"))

    assert retry_letters(apart.uri, choose_letters(apart.uri)) == 1
    publisher.finish(units[1], *sample.sightings(units[1]))
    publisher.finish(units[1], *sample.sightings(units[1]))
    publisher.finish(units[0], *sample.sightings(units[0]))
    for unit in (units[0], units[2]):
        VideoWriter(whole).finish(unit, *sample.sightings(unit))
    VideoWriter(whole).give_up(units[1], "timeout", "stood still", "decode")
    assert retry_letters(whole.uri, choose_letters(whole.uri)) == 1
    VideoWriter(whole).finish(units[1], *sample.sightings(units[1]))

    def rows(uri: str) -> list[dict[str, object]]:
        table = open_archive(uri).to_table(columns=["object_id", "frame_time_us", "counts"])
        return table.sort_by([("frame_time_us", "ascending"), ("object_id", "ascending")]).to_pylist()

    assert rows(apart.uri) == rows(whole.uri)
    assert not verify(apart.uri).problems


def test_who_looks_slowly_while_another_one_publishes_comes_to_the_same(
    archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one commits all units between two looks at what is committed."""
    bring(str(tmp_path / "undisturbed"), units())
    writer = sample.opened(archive)
    for unit in units():
        writer.stage_unit(unit, *tables(unit), *told(unit))
    looks: list[str] = []

    def slowly(uri: str, read: Callable[[str], bytes] = storage.read_bytes) -> bytes:
        looks.append(uri)
        try:
            return read(uri)
        finally:
            if looks == [uri]:
                assert VideoWriter(writer).publish(units()[0])

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read_bytes", slowly)
        assert VideoWriter(writer).publish(units()[0])
    assert "_commits" in looks[0]
    assert rows(archive) == rows(str(tmp_path / "undisturbed"))


@pytest.mark.parametrize("what", [".json", ".data.parquet", ".frames.parquet"])
def test_a_staged_unit_that_is_damaged_is_found_and_done_again_and_nothing_else(archive: str, what: str) -> None:
    writer = sample.opened(archive)
    *some, last = units()
    for unit in some:
        writer.stage_unit(unit, *tables(unit), *told(unit))
    (damaged,) = (info.uri for info in storage.list_files(archive) if f"{some[1].unit_id}{what}" in info.uri)
    content = storage.read_bytes(damaged)
    storage.write_bytes(damaged, content[:20] + bytes([content[20] ^ 255]) + content[21:])
    assert [some[1].unit_id in problem for problem in verify(archive).problems] == [True]

    with pytest.raises(NotApplied, match="run the job again"):
        VideoWriter(writer).finish(last, *tables(last), *told(last))
    left = load_ledger(archive, writer.run_key)
    assert left.staged | left.committed == {some[0].unit_id, last.unit_id}
    assert verify(archive).problems == ()
    bring(archive, units())
    assert len(read_commits(archive)) == len(units())
    assert verify(archive).problems == ()


def cut_job(archive: str, unit_s: int, upto: int | None = None, dead: int | None = None) -> None:
    """What a job does for a video of 50 s whose units are so long: those that are missing, or the first of them."""
    writer = sample.opened(archive)
    ledger = load_ledger(archive, writer.run_key)
    units = as_begun(archive, writer.run_key, cut(sample.video(), 50, unit_s), ledger)
    for unit in missing_units(units, ledger)[:upto]:
        if unit.index == dead:
            VideoWriter(writer).give_up(unit, "too_large", "units are too long", "decode")
        else:
            VideoWriter(writer).finish(unit, *sample.sightings(unit))


@pytest.mark.parametrize(("first", "then"), [(30, 40), (40, 30), (25, 40)])
def test_a_video_that_was_begun_in_other_units_of_the_same_number_is_ended_in_them(
    first: int, then: int, archive: str
) -> None:
    """An id says that it is the first of two, not how long it is."""
    cut_job(archive, first, upto=1)
    cut_job(archive, then)
    assert sorted(open_frames(archive).to_table()["second"].to_pylist()) == [*range(50)]
    assert verify(archive).problems == ()


@pytest.mark.parametrize("dead", [0, 1])
def test_so_is_one_of_which_a_unit_was_dead(dead: int, archive: str) -> None:
    cut_job(archive, 30, dead=dead)
    retry_letters(archive, choose_letters(archive))
    cut_job(archive, 25)
    assert sorted(open_frames(archive).to_table()["second"].to_pylist()) == [*range(50)]
    assert verify(archive).problems == ()


def test_units_that_do_not_meet_are_not_published_and_found_where_they_were(archive: str) -> None:
    (first, _), (_, second) = cut(sample.video(), 50, 30), cut(sample.video(), 50, 40)
    writer = VideoWriter(sample.opened(archive))
    writer.finish(first, *sample.sightings(first))
    with pytest.raises(CommitConflict, match="--unit-s"):
        writer.finish(second, *sample.sightings(second))
    assert not read_commits(archive)
    for unit in (first, second):  # as versions before this one did
        sample.commit(sample.opened(archive), unit)
    assert any("ends at 30 s, the next begins at 40 s" in problem for problem in verify(archive).problems)
