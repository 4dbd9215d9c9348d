"""A store that fails at any one call of a whole night's work: the next night ends in the same archive.

Every call of the door to the store, in every way that it can fail: the process dies before or after it, the store
refuses (nothing happened), the connection breaks before or after the effect (nobody knows). A night takes the lease,
fills a new run beside an older one, changes readers over, compacts, collects, and removes the older run. See also the
crashes in test_commit, test_staging, test_compact, test_gc: they look at what readers see in between.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from avs_core import storage
from avs_core.archive.attempts import Attempts
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.compact import compact
from avs_core.archive.current import make_current
from avs_core.archive.gc import gc
from avs_core.archive.lease import REPROCESS, Times, holder, leased
from avs_core.archive.ledger import load_ledger
from avs_core.archive.read import open_archive
from avs_core.archive.removal import remove_run
from avs_core.archive.schema import RunRecord
from avs_core.archive.staging import VideoWriter
from avs_core.archive.touched import earlier_versions, record_touch
from avs_core.archive.verify import archive_digest, verify
from avs_core.clip import VideoRef
from avs_core.errors import NotApplied, OutcomeUnknown, StorageError
from tests.archive import sample
from tests.tolls import Toll

CALLS = ("put_if_absent", "write_bytes", "read_bytes", "open_read", "list_files", "info", "is_file", "delete")
WRITES = ("put_if_absent", "write_bytes", "delete")
OLDER = RunRecord(**{**sample.RECORD.model_dump(), "thresholds": {"mask": 0.4}})
TIMES = Times(beat_s=600.0, ttl_s=0.05, look_s=0.01)
"""No heartbeat comes, so that the calls of a night are the same each time; a dead holder is followed at once."""


class Death(BaseException):
    """The process ends here."""


WAYS: dict[str, tuple[bool, type[BaseException]]] = {
    "dies before": (False, Death),
    "dies after": (True, Death),
    "is refused": (False, NotApplied),
    "breaks before the effect": (False, OutcomeUnknown),
    "breaks after the effect": (True, OutcomeUnknown),
}


class Faulty:
    """Lets all calls through but the n-th, and counts them. Who died at it makes no more."""

    def __init__(self, at: int, after: bool, fault: type[BaseException]) -> None:
        self.count = 0
        self._at, self._after, self._fault = at, after, fault

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count > self._at and self._fault is Death:
                raise Death("it is dead")
            if self.count != self._at:
                return function(*args, **kwargs)
            if self._after:
                with suppress(StorageError):  # nobody hears the answer
                    function(*args, **kwargs)
            raise self._fault("injected")

        return call


def videos(folder: Path) -> dict[str, VideoRef]:
    """One in a piece, one that is cut, one that dies, and one that was touched after it was done."""
    named = {name: sample.video(name) for name in ("whole", "cut", "dead")}
    before = VideoRef("s3://videos/touched.mp4", 7, "1-2-7", 1, content="ab" * 32)
    return {**named, "before": before, "touched": VideoRef(before.uri, 7, "4-5-7", 2)}


def before(archive: str) -> str:
    """The run that readers have had so far; its key."""
    writer = sample.opened(archive, OLDER)
    (unit,) = sample.units(sample.video("whole"))
    sample.commit(writer, unit)
    return writer.run_key


def night(archive: str, folder: Path, older: str) -> None:
    """All that jobs write, one after the other; done again, it changes nothing."""
    with leased(archive, REPROCESS, "a night", lambda: None, TIMES) as lease:
        writer = ArchiveWriter(archive, sample.RECORD)
        writer.open_run()
        writer.check_exclusive()
        fill(writer, videos(folder))
        make_current(archive, writer.run_key, lease.check)
        compact(archive)
        gc(archive, older_than_s=0.0, now_s=4e9)
    if files_of(older, archive):
        remove_run(archive, older, times=TIMES)


def files_of(run_key: str, archive: str) -> list[str]:
    """Everything that names a run."""
    return [found.uri for found in storage.list_files(archive) if run_key in found.uri]


def fill(writer: ArchiveWriter, seen: dict[str, VideoRef]) -> None:
    """What is not in the run yet: units, a dead letter, a touch record."""
    ledger = load_ledger(writer.uri, writer.run_key)
    publisher = VideoWriter(writer)
    publisher.sweep(ledger)
    for name, count in (("whole", 1), ("cut", 3), ("before", 1)):
        for unit in sample.units(seen[name], count):
            if unit.unit_id not in ledger.committed | ledger.staged:
                publisher.finish(unit, *sample.sightings(unit))
        publisher.publish(unit)
    (unit,) = sample.units(seen["dead"])
    if unit.unit_id not in ledger.dead:
        Attempts(writer.uri, writer.run_key).note(unit, "timeout", "decode")
        publisher.give_up(unit, "timeout", "stood still", "decode")
    ledger = load_ledger(writer.uri, writer.run_key)
    if seen["touched"].video_key not in ledger.touched:
        touch = earlier_versions(writer.uri, writer.run_key, ledger, [seen["touched"]])[seen["touched"].uri]
        record_touch(writer.uri, writer.run_key, seen["touched"], touch)


@dataclass(frozen=True)
class Night:
    """Whose call `at` goes wrong in some way, if it has so many; which calls count."""

    at: int
    way: str
    calls: tuple[str, ...]
    folder: Path
    caplog: pytest.LogCaptureFixture

    def pass_over(self, archive: str, older: str) -> tuple[int, bool]:
        """How many calls there were, and whether anybody noticed the fault."""
        faulty = Faulty(self.at, *WAYS[self.way])
        self.caplog.clear()
        with pytest.MonkeyPatch.context() as patch:
            for name in self.calls:
                patch.setattr(storage, name, faulty.wrap(getattr(storage, name)))
            try:
                night(archive, self.folder, older)
            except (Death, StorageError):
                return faulty.count, True
        return faulty.count, any(record.levelno >= logging.WARNING for record in self.caplog.records)


def check_everywhere(places: Callable[[str], str], nights: Callable[[int], Night]) -> int:
    """Disturb each call in an archive of its own; the next night ends as an undisturbed one did."""
    older = before(undisturbed := places("undisturbed"))
    night(undisturbed, nights(0).folder, older)
    digest, rows = archive_digest(undisturbed), open_archive(undisturbed).count_rows()
    at = 0
    while True:
        disturbed = nights(at := at + 1)
        before(archive := places(str(at)))
        count, noticed = disturbed.pass_over(archive, older)
        if count < at:
            return at - 1
        assert noticed or WAYS[disturbed.way][1] is OutcomeUnknown, f"call {at} failed and nobody noticed"
        night(archive, disturbed.folder, older)
        assert not verify(archive).problems, f"call {at}"
        assert open_archive(archive).count_rows() == rows, f"call {at}"
        assert archive_digest(archive) == digest, f"call {at}"
        assert not files_of(older, archive), f"call {at}"
        assert holder(archive, REPROCESS) is None, f"call {at}"


SLOW = set(WAYS) - {"dies after"}


@pytest.fixture
def nights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Callable[[str, tuple[str, ...]], Callable[[int], Night]]:
    """Those that are disturbed in a way, by the number of the call."""
    return lambda way, calls: lambda at: Night(at, way, calls, tmp_path, caplog)


Nights = Callable[[str, tuple[str, ...]], Callable[[int], Night]]


@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.slow) if way in SLOW else way for way in WAYS])
def test_a_fault_at_any_write_leaves_no_trace(way: str, tmp_path: Path, nights: Nights) -> None:
    assert check_everywhere(lambda name: str(tmp_path / name), nights(way, WRITES)) > 50


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", sorted(SLOW))
def test_a_fault_at_any_call_leaves_no_trace(way: str, tmp_path: Path, nights: Nights) -> None:
    assert check_everywhere(lambda name: str(tmp_path / name), nights(way, CALLS)) > 180


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", WAYS)
def test_a_fault_at_any_write_to_s3_leaves_no_trace(way: str, s3_bucket: str, nights: Nights, toll: Toll) -> None:
    toll.fault = f"each write of a night to S3, one after the other: {way}"
    toll.injected = check_everywhere(lambda name: f"{s3_bucket}/{name}", nights(way, WRITES))
    assert toll.injected > 50
    toll.survived = True
