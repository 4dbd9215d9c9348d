"""A store that fails at any one call of a whole night's work: the next night ends in the same archive.

Every call of the door to the store, in every way that it can fail: the process dies before or after it, the store
refuses (nothing happened), the connection breaks before or after the effect (nobody knows). See also the crashes in
test_commit, test_staging, test_compact, test_gc: they look at what readers see in between.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from avs_core import storage
from avs_core.archive.attempts import Attempts
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.compact import compact
from avs_core.archive.current import make_current
from avs_core.archive.gc import gc
from avs_core.archive.ledger import load_ledger
from avs_core.archive.read import open_archive
from avs_core.archive.staging import VideoWriter
from avs_core.archive.touched import earlier_versions, record_touch
from avs_core.archive.verify import archive_digest, verify
from avs_core.clip import VideoRef
from avs_core.errors import NotApplied, OutcomeUnknown, StorageError
from tests.archive import sample

CALLS = ("put_if_absent", "write_bytes", "read_bytes", "open_read", "list_files", "info", "delete")
WRITES = ("put_if_absent", "write_bytes", "delete")


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
    """Lets all calls through but the n-th, and counts them."""

    def __init__(self, at: int, after: bool, fault: type[BaseException]) -> None:
        self.count = 0
        self._at, self._after, self._fault = at, after, fault

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
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


def night(archive: str, folder: Path) -> None:
    """All that jobs write, one after the other; done again, it changes nothing."""
    writer = ArchiveWriter(archive, sample.RECORD)
    writer.open_run()
    writer.check_exclusive()
    seen = videos(folder)
    ledger = load_ledger(archive, writer.run_key)
    publisher = VideoWriter(writer)
    publisher.sweep(ledger)
    for name, count in (("whole", 1), ("cut", 3), ("before", 1)):
        for unit in sample.units(seen[name], count):
            if unit.unit_id not in ledger.committed | ledger.staged:
                publisher.finish(unit, *sample.sightings(unit))
        publisher.publish(unit)
    (unit,) = sample.units(seen["dead"])
    if unit.unit_id not in ledger.dead:
        Attempts(archive, writer.run_key).note(unit, "timeout", "decode")
        publisher.give_up(unit, "timeout", "stood still", "decode")
    ledger = load_ledger(archive, writer.run_key)
    if seen["touched"].video_key not in ledger.touched:
        touch = earlier_versions(archive, writer.run_key, ledger, [seen["touched"]])[seen["touched"].uri]
        record_touch(archive, writer.run_key, seen["touched"], touch)
    make_current(archive, writer.run_key)
    compact(archive)
    gc(archive, older_than_s=0.0, now_s=4e9)


def disturbed(archive: str, folder: Path, at: int, way: str, calls: tuple[str, ...]) -> tuple[int, bool]:
    """One night whose call `at` goes wrong: how many calls there were, and whether the night noticed."""
    faulty = Faulty(at, *WAYS[way])
    with pytest.MonkeyPatch.context() as patch:
        for name in calls:
            patch.setattr(storage, name, faulty.wrap(getattr(storage, name)))
        try:
            night(archive, folder)
        except (Death, StorageError):
            return faulty.count, True
    return faulty.count, False


def check_everywhere(places: Callable[[str], str], folder: Path, way: str, calls: tuple[str, ...]) -> int:
    """Disturb each call in an archive of its own; the next night ends as an undisturbed one did."""
    night(undisturbed := places("undisturbed"), folder)
    digest, rows = archive_digest(undisturbed), open_archive(undisturbed).count_rows()
    at = 0
    while True:
        at += 1
        count, noticed = disturbed(archive := places(str(at)), folder, at, way, calls)
        if count < at:
            return at - 1
        assert noticed or WAYS[way][1] is OutcomeUnknown, f"call {at} failed and nobody noticed"
        night(archive, folder)
        assert not verify(archive).problems, f"call {at}"
        assert open_archive(archive).count_rows() == rows, f"call {at}"
        assert archive_digest(archive) == digest, f"call {at}"


SLOW = {"dies before", "is refused", "breaks before the effect"}


@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.slow) if way in SLOW else way for way in WAYS])
def test_a_fault_at_any_write_leaves_no_trace(way: str, tmp_path: Path) -> None:
    assert check_everywhere(lambda name: str(tmp_path / name), tmp_path, way, WRITES) > 25


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", sorted(SLOW))
def test_a_fault_at_any_call_leaves_no_trace(way: str, tmp_path: Path) -> None:
    assert check_everywhere(lambda name: str(tmp_path / name), tmp_path, way, CALLS) > 100


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", WAYS)
def test_a_fault_at_any_write_to_s3_leaves_no_trace(way: str, s3_bucket: str, tmp_path: Path) -> None:
    assert check_everywhere(lambda name: f"{s3_bucket}/{name}", tmp_path, way, WRITES) > 25
