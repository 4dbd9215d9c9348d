"""Staged units that nobody will publish go; what a job may still publish stays."""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from avs_core import storage
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.gc import gc
from avs_core.archive.layout import staging
from avs_core.archive.ledger import load_ledger
from avs_core.archive.staging import VideoWriter
from avs_core.archive.verify import archive_digest, verify
from avs_core.clip import Unit
from tests.archive import sample
from tests.archive.crasher import crashing

WEEK_S = 7 * 86_400.0


def cut(name: str = "a", version: int = 1, count: int = 3) -> list[Unit]:
    return sample.units(sample.video(name, version), count)


def bring(writer: ArchiveWriter, units: Sequence[Unit]) -> None:
    for unit in units:
        VideoWriter(writer).finish(unit, *sample.sightings(unit))


def staged(archive: str, writer: ArchiveWriter) -> list[str]:
    """Paths of what is staged."""
    folder = storage.join(archive, staging(writer.run_key))
    return sorted(storage.relative(info.uri, archive) for info in storage.list_files(folder))


def in_a_month() -> float:
    return time.time() + 30 * 86_400


def test_a_half_done_video_of_a_run_that_nobody_works_at_goes(archive: str) -> None:
    writer = sample.opened(archive)
    bring(writer, cut()[:2])
    before = staged(archive, writer)
    assert len(before) == 6
    assert gc(archive, older_than_s=WEEK_S).removed == ()
    assert sorted(gc(archive, older_than_s=WEEK_S, now_s=in_a_month(), dry_run=True).removed) == before
    assert staged(archive, writer) == before
    assert sorted(gc(archive, older_than_s=WEEK_S, now_s=in_a_month()).removed) == before
    assert staged(archive, writer) == []
    bring(writer, cut())  # it is wanted after all
    assert load_ledger(archive, writer.run_key).committed == {unit.unit_id for unit in cut()}
    assert verify(archive).problems == ()


def age(archive: str, pattern: str, days: float = 30) -> None:
    """Make the files that match older."""
    for path in Path(archive).glob(pattern):
        past = time.time() - days * 86_400
        os.utime(path, (past, past))


def test_an_old_unit_waits_while_somebody_works_at_the_run(tmp_path: Path) -> None:
    writer = sample.opened(archive := str(tmp_path))
    bring(writer, cut()[:2])
    age(archive, "_staged/*/*/*")
    bring(writer, cut("other", count=1))  # a commit of today
    assert gc(archive, older_than_s=WEEK_S).removed == ()
    age(archive, "_commits/*/*")
    storage.write_bytes(f"{archive}/_leases/reprocess/00000001.beat", b"1")
    assert gc(archive, older_than_s=WEEK_S).removed == ()
    age(archive, "_leases/*/*")
    bring(writer, cut("third")[:1])
    assert gc(archive, older_than_s=WEEK_S).removed == ()
    age(archive, "_staged/*/*/*")
    assert len(gc(archive, older_than_s=WEEK_S).removed) == 9


def test_a_video_of_which_any_unit_is_new_stays_whole(tmp_path: Path) -> None:
    writer = sample.opened(archive := str(tmp_path))
    bring(writer, cut()[:1])
    age(archive, "_staged/*/*/*")
    bring(writer, cut()[1:2])
    assert gc(archive, older_than_s=WEEK_S).removed == ()
    bring(writer, cut()[2:])
    assert load_ledger(archive, writer.run_key).committed == {unit.unit_id for unit in cut()}


def test_a_version_goes_once_a_later_one_is_settled_and_not_because_of_an_earlier_one(tmp_path: Path) -> None:
    writer = sample.opened(archive := str(tmp_path))
    bring(writer, cut(version=1, count=1))
    age(archive, "_commits/*/*", days=40)
    bring(writer, cut(version=2)[:2])
    age(archive, "_staged/*/*/*")
    bring(writer, cut("other", count=1))  # somebody works at the run
    assert gc(archive, older_than_s=WEEK_S).removed == ()
    bring(writer, cut(version=3, count=1))
    assert len(gc(archive, older_than_s=WEEK_S).removed) == 6
    assert verify(archive).problems == ()


def test_what_a_settled_video_left_behind_goes_when_it_is_old(tmp_path: Path) -> None:
    writer = sample.opened(archive := str(tmp_path))
    bring(writer, cut(count=2)[:1])
    bring(writer, cut(count=1))  # another cut, whole
    assert gc(archive, older_than_s=WEEK_S).removed == ()
    age(archive, "_staged/*/*/*")
    assert len(gc(archive, older_than_s=WEEK_S).removed) == 3
    assert len(load_ledger(archive, writer.run_key).committed) == 1
    assert (verify(archive).problems, verify(archive).notes) == ((), ())


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_leaves_nothing_that_is_listed_and_lost(tmp_path: Path, after: bool) -> None:
    source = str(tmp_path / "archive")
    writer = sample.opened(source)
    bring(writer, cut()[:2])

    def collect(uri: str) -> None:
        gc(uri, older_than_s=WEEK_S, now_s=in_a_month())

    def place(number: int) -> str:
        return str(shutil.copytree(source, tmp_path / f"archive-{number}"))

    clean = place(0)
    bring(sample.opened(clean), cut())
    for died in crashing(collect, place, after):
        survivor = sample.opened(died)
        ledger = load_ledger(died, survivor.run_key)
        bring(survivor, [unit for unit in cut() if unit.unit_id not in ledger.staged])
        assert archive_digest(died) == archive_digest(clean)
        collect(died)
        assert staged(died, survivor) == []
