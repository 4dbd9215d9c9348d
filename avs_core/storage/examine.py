"""Does a store do what an archive needs of it? Tried with small objects of its own, which are gone afterwards."""

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from avs_core import storage
from avs_core.errors import AlreadyExists, NotFound, StorageError

ROUNDS = 5
AT_ONCE = 2


@dataclass(frozen=True)
class StoreFacts:
    """What a store did.

    listed       an object that was written was listed at once, and read with the same bytes
    absent       what a key that nobody wrote was said to be: "" for not there, which a commit has to hear; else a fault
    exclusive    a key that is taken refuses a second put-if-absent, and keeps its content
    one_winner   of two threads that put a key at once exactly one succeeded, in every one of `ROUNDS`
    latency_s    median of writing and reading a few bytes
    """

    listed: bool
    absent: str
    exclusive: bool
    one_winner: bool
    latency_s: float


def examine(folder: str) -> StoreFacts:
    """Try a folder that nobody else uses: it is created, and emptied at the end. Raises `StorageError`."""
    folder = storage.normalise(folder)
    with _emptied(folder):
        latencies = [_write_and_read(storage.join(folder, f"plain-{index}")) for index in range(ROUNDS)]
        listed = len(list(storage.list_files(folder))) == ROUNDS
        absent = _absent(storage.join(folder, "nobody-wrote-this"))
        exclusive = _exclusive(storage.join(folder, "taken"))
        one_winner = all(_winners(storage.join(folder, f"race-{index}")) == 1 for index in range(ROUNDS))
    return StoreFacts(listed, absent, exclusive, one_winner, statistics.median(latencies))


@contextmanager
def _emptied(folder: str) -> Iterator[None]:
    try:
        yield
    finally:
        for found in list(storage.list_files(folder)):
            storage.delete(found.uri)


def _write_and_read(uri: str) -> float:
    """Seconds that both took."""
    started = time.perf_counter()
    storage.write_bytes(uri, b"plain")
    storage.read_bytes(uri)
    return time.perf_counter() - started


def _absent(uri: str) -> str:
    """The fault that stands in the way of hearing that a key is not there; "" for none.

    S3 tells it only to whoever may list the bucket; to others it says 403.
    """
    try:
        if storage.is_file(uri):
            return "it is there"
        storage.read_bytes(uri)
    except NotFound:
        return ""
    except StorageError as fault:
        return str(fault)
    return "it was read"


def _exclusive(uri: str) -> bool:
    storage.put_if_absent(uri, b"first")
    return not _put(uri, b"second") and storage.read_bytes(uri) == b"first"


def _winners(uri: str) -> int:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(lambda writer: _put(uri, f"writer {writer}".encode()), range(AT_ONCE)))


def _put(uri: str, data: bytes) -> bool:
    """Whether the key was free."""
    try:
        storage.put_if_absent(uri, data)
    except AlreadyExists:
        return False
    return True
