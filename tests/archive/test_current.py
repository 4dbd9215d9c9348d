"""Which run readers get, and runs that go."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avs_core import storage
from avs_core.archive.current import current, left_by_a_person, make_current
from avs_core.archive.lease import REPROCESS, Times, leased
from avs_core.archive.read import open_archive, resolve_run
from avs_core.archive.removal import remove_run
from avs_core.archive.schema import run_key
from avs_core.archive.verify import verify
from avs_core.errors import CommitConflict, InputError, LeaseHeld
from tests.archive import sample

OTHER = sample.RECORD.model_copy(update={"thresholds": {"mask": 0.75}})
FIRST, SECOND = run_key(sample.RECORD), run_key(OTHER)

QUICK = Times(beat_s=0.1, ttl_s=2.0, look_s=0.05)


@pytest.fixture
def two_runs(archive: str) -> str:
    """An archive of two runs, the second of more videos."""
    for record, names in ((sample.RECORD, "a"), (OTHER, "ab")):
        for name in names:
            sample.commit(sample.opened(archive, record), sample.units(sample.video(name))[0])
    return archive


def test_readers_get_the_current_run_unless_they_name_another(two_runs: str) -> None:
    with pytest.raises(InputError, match=r"avs runs use"):
        open_archive(two_runs)
    assert make_current(two_runs, FIRST).before == ""
    assert resolve_run(two_runs, None) == FIRST
    before = open_archive(two_runs).count_rows()
    assert make_current(two_runs, SECOND).before == FIRST
    assert open_archive(two_runs).count_rows() > before
    assert open_archive(two_runs, FIRST).count_rows() == before
    make_current(two_runs, SECOND)
    found = current(two_runs)
    assert found is not None
    assert found.number == 2


def test_what_a_person_left_is_known_until_readers_have_it_again(two_runs: str) -> None:
    third = sample.opened(two_runs, sample.RECORD.model_copy(update={"thresholds": {"mask": 0.9}})).run_key

    def left() -> list[bool]:
        return [left_by_a_person(two_runs, key) for key in (FIRST, SECOND, third)]

    for key in (FIRST, SECOND):
        make_current(two_runs, key)
    assert left() == [False, False, False]  # it was a job that left the first
    make_current(two_runs, FIRST, by="person")
    assert left() == [False, True, False]
    make_current(two_runs, third)  # other choices do not make it good
    make_current(two_runs, FIRST, by="person")
    assert left() == [False, True, True]
    make_current(two_runs, SECOND, by="person")
    assert left() == [True, False, True]


def test_a_run_that_is_not_there_is_refused(two_runs: str) -> None:
    with pytest.raises(InputError, match="has no r0"):
        make_current(two_runs, "r0")
    assert current(two_runs) is None


def test_of_two_choices_at_once_one_is_told(two_runs: str) -> None:
    begin, told = threading.Barrier(2), []

    def choose(key: str) -> None:
        begin.wait()
        try:
            make_current(two_runs, key)
        except CommitConflict:
            told.append(key)

    threads = [threading.Thread(target=choose, args=(key,)) for key in (FIRST, SECOND)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = current(two_runs)
    assert found is not None
    assert len(told) + found.number == 2  # one was told, or they came one after the other
    assert found.run_key not in told


def test_a_choice_is_made_only_if_the_check_lets_it_and_undoes_no_later_one(two_runs: str) -> None:
    make_current(two_runs, FIRST)

    def refuse() -> None:
        raise LeaseHeld("another job is at work")

    with pytest.raises(LeaseHeld):
        make_current(two_runs, SECOND, refuse)
    assert resolve_run(two_runs, None) == FIRST
    third = sample.opened(two_runs, sample.RECORD.model_copy(update={"thresholds": {"mask": 0.9}})).run_key

    def stand_still() -> None:
        make_current(two_runs, third)  # meanwhile, by another one

    with pytest.raises(CommitConflict):
        make_current(two_runs, SECOND, stand_still)
    assert resolve_run(two_runs, None) == third


def test_an_old_run_goes_and_the_other_stays_whole(two_runs: str) -> None:
    make_current(two_runs, SECOND)
    rows = open_archive(two_runs).count_rows()
    would = remove_run(two_runs, FIRST, dry_run=True)
    assert open_archive(two_runs, FIRST).count_rows() > 0
    assert remove_run(two_runs, FIRST) == would
    assert would.files == 4  # the run, its commit, its two tables
    report = verify(two_runs)
    assert (report.runs, report.problems, report.notes) == (1, (), ())
    assert open_archive(two_runs).count_rows() == rows
    with pytest.raises(InputError, match="must be there"):
        remove_run(two_runs, FIRST)


def test_what_readers_get_is_not_removed(two_runs: str) -> None:
    make_current(two_runs, FIRST)
    with pytest.raises(InputError, match="can't be removed"):
        remove_run(two_runs, FIRST)
    remove_run(two_runs, SECOND)
    assert open_archive(two_runs).count_rows() > 0


def test_the_only_run_is_not_removed(archive: str) -> None:
    sample.opened(archive)
    with pytest.raises(InputError, match="can't be removed"):
        remove_run(archive, FIRST)


def test_a_run_is_not_removed_while_a_scheduled_job_is_at_work(two_runs: str) -> None:
    make_current(two_runs, SECOND)
    with leased(two_runs, REPROCESS, "reprocess s3://videos", lambda: None, QUICK):
        with pytest.raises(LeaseHeld, match=r"one job at a time; reprocess s3://videos of process \d+ on .* try later"):
            remove_run(two_runs, FIRST, times=QUICK)
        assert remove_run(two_runs, FIRST, dry_run=True).files == 4
        assert open_archive(two_runs, FIRST).count_rows() > 0
    assert remove_run(two_runs, FIRST, times=QUICK).files == 4


def test_a_scheduled_job_that_died_keeps_no_run(two_runs: str) -> None:
    make_current(two_runs, SECOND)
    dead = b'{"host": "gone", "pid": 7, "what": "reprocess s3://videos"}'
    storage.put_if_absent(storage.join(two_runs, "_leases/reprocess/00000001.json"), dead)
    assert remove_run(two_runs, FIRST, times=Times(beat_s=0.1, ttl_s=0.3, look_s=0.05)).files == 4


def test_no_scheduled_job_begins_during_a_removal(two_runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_current(two_runs, SECOND)
    refused: list[str] = []

    def delete(uri: str, delete: Callable[[str], None] = storage.delete) -> None:
        if not refused:
            patch.setattr(storage, "delete", delete)
            with pytest.raises(LeaseHeld, match=f"the removal of run {FIRST}"):
                leased(two_runs, REPROCESS, "reprocess", lambda: None, QUICK).__enter__()
            refused.append(uri)
        delete(uri)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", delete)
        remove_run(two_runs, FIRST, times=QUICK)
    assert refused


def test_a_removal_that_stood_still_leaves_the_rest_to_the_job_that_took_over(
    two_runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_current(two_runs, SECOND)

    @contextmanager
    def lost_at_once(
        archive: str, name: str, what: str, lost: Callable[[], None], times: Times | None
    ) -> Iterator[None]:
        lost()
        yield

    monkeypatch.setattr("avs_core.archive.removal.leased", lost_at_once)
    with pytest.raises(LeaseHeld, match="run the same command again"):
        remove_run(two_runs, FIRST)
    assert open_archive(two_runs, FIRST).count_rows() > 0


def test_what_is_not_there_gets_no_lease(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be there"):
        remove_run(str(tmp_path / "nowhere"), FIRST)
    assert not (tmp_path / "nowhere").exists()


def test_a_removal_that_died_goes_on(two_runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_current(two_runs, SECOND)
    removed = []

    def die_at_the_third(uri: str) -> None:
        removed.append(uri)
        if len(removed) == 3:
            raise KeyboardInterrupt
        real(uri)

    real = storage.delete
    monkeypatch.setattr(storage, "delete", die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        remove_run(two_runs, FIRST)
    with pytest.raises(InputError):
        open_archive(two_runs, FIRST)
    remove_run(two_runs, FIRST)
    assert not [found.uri for found in storage.list_files(two_runs) if FIRST in found.uri]
