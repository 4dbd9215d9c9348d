"""A lease on disk and on a real S3 server; holders that die are processes that are killed."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avs_core import storage
from avs_core.archive.lease import Holder, Lease, Times, holder, leased
from avs_core.archive.schema import canonical_json
from avs_core.archive.verify import archive_digest
from avs_core.errors import AlreadyExists, LeaseHeld, OutcomeUnknown, StorageError
from avs_core.storage import s3
from tests.archive import sample
from tests.silent_s3 import silent_store

QUICK = Times(beat_s=0.1, ttl_s=2.0, look_s=0.05)
NEXT = {"host": "elsewhere", "pid": 7, "what": "the next one"}
"""A holder, as versions without a nonce wrote it."""
HOLD = """
import sys, time
from avs_core.archive.lease import Times, leased
with leased(sys.argv[1], "night", "a test", lambda: None, Times(0.1, 2.0, 0.05)):
    print("held", flush=True)
    time.sleep(60)
"""


def ignore() -> None:
    """What a holder does that does not care whether it lost."""


def test_one_at_a_time_and_free_again_at_once(archive: str) -> None:
    assert holder(archive, "night") is None
    with leased(archive, "night", "first", ignore, QUICK):
        by = holder(archive, "night")
        assert by is not None
        assert by.what == "first"
        second = leased(archive, "night", "second", ignore, QUICK)
        with pytest.raises(LeaseHeld, match=r"one job at a time; first of process \d+"):
            second.__enter__()
    assert holder(archive, "night") is None
    slow = Times(beat_s=10.0, ttl_s=600.0, look_s=1.0)
    with leased(archive, "night", "third", ignore, slow):  # a free one needs no watching
        assert holder(archive, "night") is not None


def test_leases_of_other_names_and_archives_are_others(archive: str) -> None:
    with leased(archive, "night", "a", ignore, QUICK), leased(archive, "day", "b", ignore, QUICK):
        assert holder(archive, "day") != holder(archive, "night")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_holder_is_followed(how: signal.Signals, archive: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, archive], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    child.send_signal(how)
    try:
        with leased(archive, "night", "next", ignore, QUICK):
            by = holder(archive, "night")
            assert by is not None
            assert by.what == "next"
    finally:
        child.kill()
        child.communicate()


def test_a_holder_that_was_followed_is_told(archive: str) -> None:
    told = threading.Event()
    with leased(archive, "night", "first", told.set, QUICK):
        storage.put_if_absent(storage.join(archive, "_leases/night/00000002.json"), b"{}")
        assert told.wait(10)


def test_a_holder_that_was_followed_hears_it_from_the_store_before_its_next_beat(archive: str) -> None:
    slow = Times(beat_s=600.0, ttl_s=600.0, look_s=1.0)
    with leased(archive, "night", "first", ignore, slow) as lease:
        lease.check()
        storage.put_if_absent(storage.join(archive, "_leases/night/00000002.json"), canonical_json(NEXT))
        with pytest.raises(LeaseHeld, match="the next one of process 7 on elsewhere"):
            lease.check()


@pytest.mark.parametrize("answer", [AlreadyExists("412, to a repeated PUT"), OutcomeUnknown("the connection broke")])
def test_its_own_write_is_nobody_elses(archive: str, answer: StorageError, monkeypatch: pytest.MonkeyPatch) -> None:
    put = storage.put_if_absent

    def put_and_answer(uri: str, data: bytes) -> None:
        put(uri, data)
        raise answer

    monkeypatch.setattr(storage, "put_if_absent", put_and_answer)
    with leased(archive, "night", "first", ignore, QUICK) as lease:
        lease.check()
    assert holder(archive, "night") is None


def test_the_write_of_a_twin_is_another_holders(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers may have one host name, and the same process id in it."""
    put = storage.put_if_absent

    def twin_first(uri: str, data: bytes) -> None:
        mine = Holder.model_validate_json(data)
        twin = mine.model_copy(update={"nonce": "f" * len(mine.nonce)})
        put(uri, canonical_json(twin.model_dump(mode="json")))
        put(uri, data)

    monkeypatch.setattr(storage, "put_if_absent", twin_first)
    with pytest.raises(LeaseHeld, match="one job at a time"):
        leased(archive, "night", "first", ignore, QUICK).__enter__()


def test_the_lease_of_an_older_version_is_read(archive: str) -> None:
    storage.put_if_absent(storage.join(archive, "_leases/night/00000001.json"), canonical_json(NEXT))
    by = holder(archive, "night")
    assert by is not None
    assert (by.what, by.nonce) == ("the next one", "")
    with leased(archive, "night", "ours", ignore, QUICK):  # that one is dead
        assert holder(archive, "night") != by


@contextmanager
def away(archive: Path) -> Iterator[Path]:
    """The archive's disk is gone while the block lasts; where its files are meanwhile."""
    elsewhere = archive.rename(archive.with_name("elsewhere"))
    archive.write_text("no folder")
    try:
        yield elsewhere
    finally:
        archive.unlink()
        elsewhere.rename(archive)


@pytest.mark.parametrize("followed", [False, True])
def test_a_holder_whose_store_was_away_has_lost_only_if_another_one_followed(followed: bool, tmp_path: Path) -> None:
    told = threading.Event()
    times = Times(beat_s=0.05, ttl_s=0.5, look_s=0.05)
    archive = tmp_path / "archive"
    with leased(str(archive), "night", "first", told.set, times) as lease:
        with away(archive) as elsewhere:
            assert not told.wait(4 * times.ttl_s)
            if followed:
                (elsewhere / "_leases/night/00000002.json").write_bytes(canonical_json(NEXT))
        assert told.wait(10 if followed else 1) == followed
        if not followed:
            lease.check()


@pytest.mark.timeout(60)
def test_a_store_that_falls_silent_holds_up_neither_the_holder_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "WRITE_TIMEOUT_S", limit_s := 10.0)
    told = threading.Event()
    with silent_store() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        lease = Lease("s3://bucket/_leases/night", 1, Times(beat_s=0.1, ttl_s=0.5, look_s=0.05), told.set)
        while not store.requests:
            time.sleep(0.05)
        started = time.monotonic()
        lease.release()  # with a heartbeat on its way: that one's limit is not waited for
        assert time.monotonic() - started < 1.5 * limit_s
        assert store.hung_up.wait(20)
    assert not told.is_set()


def test_of_many_at_once_one_gets_it(archive: str) -> None:
    begin, held, refused = threading.Barrier(6), [], []

    def try_it(number: int) -> None:
        begin.wait()
        try:
            with leased(archive, "night", f"job {number}", ignore, QUICK):
                held.append(number)
                while len(refused) < 5:
                    time.sleep(0.05)
        except LeaseHeld:
            refused.append(number)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    assert len(refused) == 5


def test_old_leases_are_cleared_up_and_change_no_digest(archive: str) -> None:
    sample.opened(archive)
    before = archive_digest(archive)
    for number in range(12):
        with leased(archive, "night", f"night {number}", ignore, QUICK):
            pass
    assert archive_digest(archive) == before
    assert len(list(storage.list_files(storage.join(archive, "_leases")))) < 12
