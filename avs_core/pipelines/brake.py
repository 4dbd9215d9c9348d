"""How a job stops early and well: it finishes the units in work, takes no more, and says why.

The driver presses the brake (SIGTERM, a deadline, a spent budget, a lost lease); workers ask before they take up a
unit, through an actor that ends with the job. What is committed stays, so the next run goes on from there.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from avs_core.pipelines.interrupt import interruptible

LOG = logging.getLogger(__name__)

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

POLL_S = 1.0
"""The driver looks at its brake, and a worker asks the driver, this often."""


def passing() -> float:
    """Seconds that go on while the machine sleeps, where its system counts them: a deadline does not wait for it."""
    return time.clock_gettime(_BOOT)


class Brake:
    """Pressed by anyone in the driver's process, at any time; a job may also have `seconds` from now on."""

    def __init__(
        self,
        seconds: float | None = None,
        why: str = "its time was up",
        grace_s: float | None = None,
        clock: Callable[[], float] = passing,
    ) -> None:
        """`grace_s` after it was pressed the job is interrupted, finished or not; None: it may take its time."""
        self._clock = clock
        self._ends = None if seconds is None else clock() + seconds
        self._why = why
        self._reason = ""
        self._pressed_at = 0.0
        self._grace_s = grace_s
        self.gave_up = False
        """Whether the job was interrupted because the grace was over, and not by a person."""

    def press(self, reason: str) -> None:
        """Stop the job; the first reason counts."""
        if not self._reason:
            self._pressed_at, self._reason = self._clock(), reason

    @property
    def reason(self) -> str:
        """Why the job is to stop; "" while it is not."""
        if self._ends is not None and self._clock() >= self._ends:
            self.press(self._why)
        return self._reason

    @property
    def out_of_patience(self) -> bool:
        """Whether the grace after the pressing is over."""
        return bool(self.reason) and self._grace_s is not None and self._clock() > self._pressed_at + self._grace_s


class StopSign:
    """What a worker asks: whether to take up no more. It goes on when nobody answers."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._asked_at = float("-inf")
        self._stop = False

    def __call__(self) -> bool:
        if not self._stop and time.monotonic() > self._asked_at + POLL_S:
            self._asked_at = time.monotonic()
            try:
                self._stop = ray.get(self._board.read.remote())
            except RayError:  # its node is gone; the driver ends the job at the next round
                return False
        return self._stop


class _Board:
    """The actor that workers ask."""

    def __init__(self) -> None:
        self._stop = False

    def write(self) -> None:
        self._stop = True

    def read(self) -> bool:
        return self._stop


@contextmanager
def stop_sign(brake: Brake) -> Iterator[StopSign]:
    """A sign for the workers of the connected Ray, that shows the brake while the block lasts."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    board: Any = ray.remote(_Board).options(num_cpus=0, scheduling_strategy=here).remote()
    ended = threading.Event()
    with interruptible() as interrupt:
        watcher = threading.Thread(target=_watch, args=(brake, board, ended, interrupt), name="brake", daemon=True)
        watcher.start()
        try:
            yield StopSign(board)
        finally:
            ended.set()
            watcher.join()
            ray.kill(board)


def _watch(brake: Brake, board: Any, ended: threading.Event, interrupt: Callable[[], None]) -> None:
    told = False
    while not ended.wait(POLL_S):
        if brake.reason and not told:
            LOG.warning("stopping, what is in work is finished first: %s", brake.reason)
            board.write.remote()
            told = True
        if brake.out_of_patience:
            LOG.warning("what is in work took longer than the grace after the stop: interrupted")
            brake.gave_up = True
            interrupt()
            return
