"""One at a time: a lease that a job holds while it lives, and that the next one takes over once it is dead.

A lease is a number that was put there exclusively; its holder rewrites a heartbeat beside it. Nobody's clock is
compared with anybody's: who finds a lease watches its heartbeat, and takes the next number when it has stood still for
`TTL_S`. A holder that slept through that finds the higher number at its next beat and knows that it has lost. So does
one whose store was away; as long as nobody has followed, the lease is its own. Two at once do no harm (decision 3).

<archive>/_leases/<name>/<number>.json   taken; the highest number counts
                         <number>.beat   rewritten every `BEAT_S`
                         <number>.free   given back
"""

import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from avs_core import storage
from avs_core.archive.commit import settle
from avs_core.archive.layout import LEASES, StoredRecord, parse
from avs_core.archive.schema import canonical_json
from avs_core.errors import LeaseHeld, NotFound, StorageError

LOG = logging.getLogger(__name__)

REPROCESS = "reprocess"
"""The lease of those who decide what becomes of an archive's runs: scheduled jobs, and who removes a run."""

BEAT_S = 10.0
TTL_S = 60.0
LOOK_S = 1.0
LONGEST = 300
"""Characters of what a lease says of its holder's work."""
KEPT = 3
"""Numbers whose files stay: the next holder removes older ones."""


class Holder(StoredRecord):
    """Who took a lease, for people.

    `nonce` is how a holder knows its own write again, since two containers may agree in all the rest; "" in the files
    of older versions.
    """

    host: str
    pid: int
    what: str
    nonce: str = ""


@dataclass(frozen=True)
class Times:
    """Seconds: between heartbeats, until a heartbeat that stands still is a dead holder's, between two looks."""

    beat_s: float = BEAT_S
    ttl_s: float = TTL_S
    look_s: float = LOOK_S


class Lease:
    """A lease that is held; `lost` is called once, from another thread, when another holder has been seen."""

    def __init__(self, folder: str, number: int, times: Times, lost: Callable[[], None]) -> None:
        self._folder = folder
        self._number = number
        self._times = times
        self._lost = lost
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Ask the store whether it is ours still. Raises `LeaseHeld` when another holder has followed, `StorageError`.

        Who slept may be awake for seconds before the next heartbeat tells of it.
        """
        highest = _highest(self._folder)
        if highest != self._number:
            raise _held(self._folder, highest)

    def release(self) -> None:
        """Give it back; where the store can't be reached, the heartbeat that stands still says as much.

        A heartbeat that is on its way is waited for, but no longer than until the next one: beside a lease that was
        given back a late one tells nothing.
        """
        self._ended.set()
        self._thread.join(self._times.beat_s)
        try:
            storage.write_bytes(_uri(self._folder, self._number, "free"), b"")
        except StorageError as fault:
            LOG.warning("the lease could not be given back, the next job has to wait for it: %s", fault)

    def _beat_on(self) -> None:
        while not self._ended.wait(self._times.beat_s):
            if self._beat() and not self._ended.is_set():
                self._lost()
                break

    def _beat(self) -> bool:
        """Whether another holder has followed. A store that is away tells of none, and may come back at any time."""
        try:
            storage.write_bytes(_uri(self._folder, self._number, "beat"), str(time.monotonic_ns()).encode())
            return _highest(self._folder) > self._number
        except StorageError as fault:
            LOG.warning("a heartbeat did not get through: %s", fault)
            return False


@contextmanager
def leased(archive: str, name: str, what: str, lost: Callable[[], None], times: Times | None = None) -> Iterator[Lease]:
    """Hold the lease while the block lasts. Raises `LeaseHeld` when another one is alive.

    To know that, it may have to wait for `ttl_s`.
    """
    times = times or Times()
    folder = storage.join(storage.normalise(archive), LEASES, name)
    number = _take(folder, what, times)
    lease = Lease(folder, number, times, lost)
    try:
        yield lease
    finally:
        lease.release()


def shortened(what: str) -> str:
    """What a lease may say of its holder's work: names that are no text, and thousands of them, do no harm."""
    text = what.encode(errors="backslashreplace").decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def holder(archive: str, name: str) -> Holder | None:
    """Who took the lease last and has not given it back; it may be dead."""
    folder = storage.join(storage.normalise(archive), LEASES, name)
    number = _highest(folder)
    if not number or storage.is_file(_uri(folder, number, "free")):
        return None
    return parse(Holder, storage.read_bytes(uri := _uri(folder, number, "json")), uri)


def _take(folder: str, what: str, times: Times) -> int:
    """The number that was taken."""
    number = _highest(folder)
    if number and not storage.is_file(_uri(folder, number, "free")):
        _wait_for_death(folder, number, times)
    mine = Holder(host=platform.node(), pid=os.getpid(), what=what, nonce=uuid.uuid4().hex)
    if not settle(_uri(folder, number + 1, "json"), canonical_json(mine.model_dump(mode="json"))):
        raise _held(folder, number + 1)
    for old in range(max(1, number + 1 - 2 * KEPT), number + 2 - KEPT):
        for kind in ("beat", "free", "json"):
            storage.delete(_uri(folder, old, kind))
    return number + 1


def _wait_for_death(folder: str, number: int, times: Times) -> None:
    """Return when the heartbeat has stood still for long enough. Raises `LeaseHeld` when it moves."""
    first, started = _beat(folder, number), time.monotonic()
    LOG.info("another job took the lease; is it alive? Watching for up to %.0f s", times.ttl_s)
    while time.monotonic() < started + times.ttl_s:
        time.sleep(times.look_s)
        if storage.is_file(_uri(folder, number, "free")):
            return
        if _beat(folder, number) != first or _highest(folder) > number:
            raise _held(folder, _highest(folder))


def _held(folder: str, number: int) -> LeaseHeld:
    try:
        by = parse(Holder, storage.read_bytes(uri := _uri(folder, number, "json")), uri)
    except NotFound:
        return LeaseHeld(f"one job at a time; another one has just taken {folder}: try again later")
    return LeaseHeld(
        f"one job at a time; {by.what} of process {by.pid} on {by.host} is at work: it is let to finish, try later"
    )


def _beat(folder: str, number: int) -> bytes:
    try:
        return storage.read_bytes(_uri(folder, number, "beat"))
    except NotFound:
        return b""


def _highest(folder: str) -> int:
    """The highest number that was taken, 0 for none."""
    names = (found.uri.rpartition("/")[2] for found in storage.list_files(folder))
    return max((int(name.removesuffix(".json")) for name in names if name.endswith(".json")), default=0)


def _uri(folder: str, number: int, kind: str) -> str:
    return storage.join(folder, f"{number:08d}.{kind}")
