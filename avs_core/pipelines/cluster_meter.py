"""What a job's cluster is paid for: the CPUs and GPUs of its nodes, at work or not, from the job's start to its end.

Actors are at work for a part of that: they start, wait for each other and for the longest video, and hold what they
asked for. Nodes come and go, so what is there is looked at again and again.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

LOOK_S = 5.0


@dataclass(frozen=True)
class Nodes:
    """CPUs and GPUs that a cluster has; a head that was started with none counts as none."""

    cpus: float
    gpus: float


def nodes() -> Nodes:
    """Of the connected Ray."""
    has = ray.cluster_resources()
    return Nodes(has.get("CPU", 0.0), has.get("GPU", 0.0))


class Meter:
    """What a cluster has, times how long it has it. What the first look finds has been there since `started`."""

    def __init__(
        self, started: float, count: Callable[[], Nodes] = nodes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count, self._clock = count, clock
        self._started = self._since = started
        self._has = count()
        self._cpu_s = self._gpu_s = 0.0

    def look(self) -> None:
        """Look at the cluster again: until now it had what it had the last time."""
        has, now = self._count(), self._clock()
        self._cpu_s += self._has.cpus * (now - self._since)
        self._gpu_s += self._has.gpus * (now - self._since)
        self._has, self._since = has, now

    def mean(self, now: float) -> Nodes:
        """What the cluster had from the start until `now`, on average."""
        seconds, more = max(now - self._started, 1e-9), now - self._since
        return Nodes((self._cpu_s + self._has.cpus * more) / seconds, (self._gpu_s + self._has.gpus * more) / seconds)


@contextmanager
def metered(started: float, count: Callable[[], Nodes] = nodes) -> Iterator[Meter]:
    """Look at the cluster while the block lasts, for a job that `started` then (`time.monotonic`)."""
    meter, ended = Meter(started, count), threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_S):
            try:
                meter.look()
            except RayError:  # the head is gone: that ends the job by itself
                return

    watcher = threading.Thread(target=watch, name="meter", daemon=True)
    watcher.start()
    try:
        yield meter
    finally:
        ended.set()
        watcher.join()
