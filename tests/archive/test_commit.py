import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avs_core import storage
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.ledger import load_ledger
from avs_core.archive.read import dead_letters, open_archive, open_frames, read_commits
from avs_core.archive.schema import canonical_json
from avs_core.archive.verify import archive_digest, verify
from avs_core.errors import AlreadyExists, CommitConflict, ConfigError, NotApplied, OutcomeUnknown, UnsafeStore
from tests.archive import sample
from tests.archive.crasher import Crash, Crasher

UNIT = sample.units(sample.video())[0]
WRITERS = 8


def files(uri: str) -> list[str]:
    return sorted(storage.relative(found.uri, uri) for found in storage.list_files(uri))


def test_a_unit_lies_where_its_name_says(archive: str) -> None:
    writer = sample.opened(archive)
    commit = sample.commit(writer, UNIT)
    key, unit_id = writer.run_key, UNIT.unit_id
    assert files(archive) == [
        f"_commits/run={key}/{unit_id}.json",
        f"_runs/{key}.json",
        f"data/run={key}/shard={UNIT.shard}/{unit_id}.parquet",
        f"frames/run={key}/shard={UNIT.shard}/{unit_id}.parquet",
    ]
    assert read_commits(archive) == [commit]
    assert (commit.instances, commit.frames.rows, commit.video.uri) == (6, 5, UNIT.video.uri)


def test_doing_it_again_changes_nothing(archive: str) -> None:
    commit = sample.commit(sample.opened(archive), UNIT)
    before = archive_digest(archive)
    assert sample.commit(sample.opened(archive), UNIT) == commit
    assert archive_digest(archive) == before


def test_other_content_for_a_committed_unit_is_a_conflict(archive: str) -> None:
    writer = sample.opened(archive)
    sample.commit(writer, UNIT)
    before = archive_digest(archive)
    with pytest.raises(CommitConflict, match=UNIT.unit_id):
        sample.commit(writer, UNIT, seed=7)
    assert archive_digest(archive) == before


def test_other_content_that_nobody_committed_is_left_aside(archive: str) -> None:
    writer = sample.opened(archive)
    taken = f"data/run={writer.run_key}/shard={UNIT.shard}/{UNIT.unit_id}.parquet"
    storage.write_bytes(storage.join(archive, taken), b"of a writer that is still at work, or died")
    commit = sample.commit(writer, UNIT)
    assert commit.data.path != taken
    report = verify(archive)
    assert report.problems == ()
    assert [note for note in report.notes if taken in note]
    assert open_archive(archive).to_table().equals(sample.tables(UNIT)[0])


@pytest.mark.parametrize("same", [True, False], ids=["same content", "different content"])
def test_of_many_writers_one_commit_stands(archive: str, same: bool) -> None:
    sample.opened(archive)
    start = threading.Barrier(WRITERS)

    def write(number: int) -> bool:
        writer = ArchiveWriter(archive, sample.RECORD)
        start.wait()
        try:
            sample.commit(writer, UNIT, seed=0 if same else 100 * number)
        except CommitConflict:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        stood = list(pool.map(write, range(WRITERS)))
    assert sum(stood) == (WRITERS if same else 1)
    assert verify(archive).problems == ()
    winner = 0 if same else 100 * stood.index(True)
    assert open_archive(archive).to_table().equals(sample.tables(UNIT, winner)[0])


def test_a_run_key_stands_for_one_record(archive: str) -> None:
    writer = sample.opened(archive)
    writer.open_run()
    uri = storage.join(archive, f"_runs/{writer.run_key}.json")
    other = sample.RECORD.model_copy(update={"model": "another"})
    storage.write_bytes(uri, canonical_json(other.model_dump(mode="json")))
    with pytest.raises(CommitConflict, match="run key"):
        writer.open_run()


def test_a_table_of_another_schema_is_refused(tmp_path: Path) -> None:
    instances, frames = sample.tables(UNIT)
    writer = sample.opened(str(tmp_path))
    with pytest.raises(ConfigError, match="schema"):
        writer.commit_unit(UNIT, instances.drop_columns("score"), frames)
    assert read_commits(str(tmp_path)) == []


# Dead letters


def test_a_dead_letter_says_why(archive: str) -> None:
    writer = sample.opened(archive)
    writer.dead_letter(UNIT, "truncated", "ends at 3.2 s of 10 s", "decode", attempts=2, flags=("damaged",))
    before = archive_digest(archive)
    writer.dead_letter(UNIT, "timeout", "another machine saw it otherwise", "decode")
    assert archive_digest(archive) == before
    (letter,) = dead_letters(archive).to_pylist()
    assert letter == {
        "unit_id": UNIT.unit_id,
        "video_id": UNIT.video.video_id,
        "video_uri": UNIT.video.uri,
        "fingerprint": UNIT.video.fingerprint,
        "start_s": 0,
        "stop_s": 5,
        "error_class": "truncated",
        "stage": "decode",
        "message": "ends at 3.2 s of 10 s",
        "attempts": 2,
        "flags": "damaged",
        "code_version": "",
        "decoder": "",
    }


def test_a_committed_unit_gets_no_dead_letter(archive: str) -> None:
    writer = sample.opened(archive)
    sample.commit(writer, UNIT)
    writer.dead_letter(UNIT, "timeout", "too late", "decode")
    assert dead_letters(archive).num_rows == 0
    assert load_ledger(archive, writer.run_key).dead == frozenset()


# Faults of the store


class Store:
    """Storage whose put-if-absent loses its answer or fails, as often as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, applied: bool, times: int) -> None:
        self._put = storage.put_if_absent
        self._applied = applied
        self.times = times
        monkeypatch.setattr(storage, "put_if_absent", self)

    def __call__(self, uri: str, data: bytes) -> None:
        if not self.times:
            return self._put(uri, data)
        self.times -= 1
        if self._applied:
            self._put(uri, data)
        raise OutcomeUnknown(f"the connection broke: {uri}")


def test_an_unknown_outcome_is_looked_up(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch, applied=True, times=4)
    sample.commit(sample.opened(archive), UNIT)
    assert store.times == 0
    assert verify(archive).commits == 1


def test_a_write_that_did_not_happen_can_be_repeated(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = sample.opened(archive)
    Store(monkeypatch, applied=False, times=1)
    with pytest.raises(OutcomeUnknown):
        sample.commit(writer, UNIT)
    sample.commit(writer, UNIT)
    assert verify(archive).problems == ()


# A crash before or after each call


def work(uri: str, units: int = 2) -> None:
    """A whole small job: some units of a video, a dead letter."""
    writer = sample.opened(uri)
    done = load_ledger(uri, writer.run_key).committed
    for number, unit in enumerate(sample.units(sample.video(), units)):
        if unit.unit_id not in done:
            sample.commit(writer, unit, seed=number)
    writer.dead_letter(sample.units(sample.video("broken"))[0], "unreadable", "no header", "probe")


def whole_units_only(uri: str) -> None:
    """What a reader sees between a crash and the next try: each unit with all of its rows, or not at all."""
    if not list(storage.list_files(storage.join(uri, "_runs"))):
        return
    rows = dict.fromkeys((0, 5), 0)
    for row in open_frames(uri).to_table(columns=["second"]).to_pylist():
        rows[row["second"] // 5 * 5] += 1
    assert set(rows.values()) <= {0, 5}
    assert open_archive(uri).count_rows() == sum(commit.instances for commit in read_commits(uri))
    assert verify(uri).problems == ()


STORAGE_CALLS = [(storage, name) for name in ("put_if_absent", "read_bytes", "is_file", "list_files")]
SYSTEM_CALLS = [(os, "link"), (os, "fsync"), (Path, "mkdir")]


def crash_everywhere(
    uri: str, units: int, calls: list[tuple[object, str]], after: bool, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Run the job with a crash at the first, second, … call, each in a fresh archive; how many calls there were."""
    work(uri, units)
    undisturbed = archive_digest(uri)
    for number in range(1, 1000):
        place = f"{uri}-{number}"
        crasher = Crasher(number, after)
        with monkeypatch.context() as patch:
            for owner, name in calls:
                patch.setattr(owner, name, crasher.wrap(getattr(owner, name)))
            try:
                work(place, units)
            except Crash:
                pass
            else:
                return number
        whole_units_only(place)
        work(place, units)
        assert archive_digest(place) == undisturbed
    raise AssertionError("the job never ended")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_of_the_store_leaves_no_trace(
    archive: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert crash_everywhere(archive, 2, STORAGE_CALLS, after, monkeypatch) > 10


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_of_the_system_leaves_no_trace(
    tmp_path: Path, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert crash_everywhere(str(tmp_path / "archive"), 1, SYSTEM_CALLS, after, monkeypatch) > 20
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")]


def test_a_refusal_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = sample.opened(str(tmp_path))

    def refuse(uri: str, data: bytes) -> None:
        raise NotApplied("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put_if_absent", refuse)
        with pytest.raises(NotApplied):
            sample.commit(writer, UNIT)
    assert read_commits(str(tmp_path)) == []
    with pytest.raises(AlreadyExists):
        storage.put_if_absent(storage.join(str(tmp_path), f"_runs/{writer.run_key}.json"), b"")


def test_a_store_that_keeps_the_condition_may_have_many_writers(archive: str) -> None:
    writer = sample.opened(archive)
    before = archive_digest(archive)
    writer.check_exclusive()
    assert archive_digest(archive) == before


@pytest.mark.integration
def test_a_store_that_ignores_the_condition_is_refused_and_nothing_is_changed(forgetful_bucket: str) -> None:
    writer = sample.opened(f"{forgetful_bucket}/archive")
    before = archive_digest(writer.uri)
    with pytest.raises(UnsafeStore, match="If-None-Match"):
        writer.check_exclusive()
    assert archive_digest(writer.uri) == before
