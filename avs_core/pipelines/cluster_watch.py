"""A job whose cluster lost a node waits for another one, but not for ever.

Ray starts what was on the node again, and has made again what lay there. Where the nodes that live are full there is
no room for either: who waits for a lost block holds the CPU that making it would need, until a node comes. Where none
comes the job ends, and the next one sizes its pools by what the cluster has then.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

from avs_core.errors import ClusterShrank
from avs_core.pipelines.interrupt import interruptible

LOOK_S = 2.0

PLANNED = (1, 4)
"""How nodes end that nobody needs any more: EXPECTED_TERMINATION and AUTOSCALER_DRAIN_IDLE of Ray's NodeDeathInfo."""


@dataclass(frozen=True)
class Census:
    """The nodes that live, and those that were given back."""

    alive: frozenset[str]
    given_back: frozenset[str] = frozenset()


def census() -> Census:
    """Of the connected Ray."""
    nodes = ray.nodes()
    return Census(
        frozenset(node["NodeID"] for node in nodes if node["Alive"]),
        frozenset(node["NodeID"] for node in nodes if not node["Alive"] and node["DeathReason"] in PLANNED),
    )


class Patience:
    """How long a job may stand still while a node is missing that it had."""

    def __init__(
        self,
        seconds: float,
        count: Callable[[], Census] = census,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self._count, self._clock = count, clock
        self._alive = count().alive
        self._whole = len(self._alive)
        self._since = clock()

    @property
    def missing(self) -> int:
        """Nodes that were lost and that no other has replaced, as of the last look."""
        return max(self._whole - len(self._alive), 0)

    def moved(self) -> None:
        """Something came to its end."""
        self._since = self._clock()

    def over(self) -> bool:
        """Look at the cluster: whether a node is missing, and for too long nothing has come to its end."""
        now = self._count()
        idle = (self._alive - now.alive) & now.given_back
        self._alive, self._whole = now.alive, max(self._whole - len(idle), len(now.alive))
        if not self.missing:
            self.moved()
        return self._clock() - self._since > self.seconds


@contextmanager
def patient(seconds: float, count: Callable[[], Census] = census) -> Iterator[Patience]:
    """Watch the cluster while the block lasts, on the main thread.

    Raises `ClusterShrank` when patience is over, wherever the block waits.
    """
    patience, ended, shrank = Patience(seconds, count), threading.Event(), threading.Event()

    def watch(interrupt: Callable[[], None]) -> None:
        while not ended.wait(LOOK_S):
            if _is_over(patience):
                shrank.set()
                interrupt()
                return

    with interruptible() as interrupt:
        watcher = threading.Thread(target=watch, args=(interrupt,), name="cluster", daemon=True)
        watcher.start()
        try:
            yield patience
        except KeyboardInterrupt:
            if not shrank.is_set():
                raise
            raise ClusterShrank(
                f"a job must get on; nothing came to its end for {seconds:.0f} s, {patience.missing} of the "
                f"cluster's nodes being lost, and what is left may be too full: what was committed stays, run the same "
                f"command again"
            ) from None
        finally:
            ended.set()
            watcher.join()


def _is_over(patience: Patience) -> bool:
    try:
        return patience.over()
    except RayError:  # the head is gone: that ends the job by itself
        return False
