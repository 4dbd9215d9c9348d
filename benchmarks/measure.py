"""How a benchmark measures: alternately, in one process, so that a ratio compares like with like."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure of a benchmark. `unit` is "s", "MB", "×", …; a ratio says in `case` of what to what."""

    case: str
    value: float
    unit: str


def nothing() -> None:
    """What precedes an act that needs nothing first."""


def alternately(
    acts: Mapping[str, Callable[[], object]], rounds: int = 3, first: Callable[[], None] = nothing
) -> dict[str, float]:
    """Median seconds of each act. Each round runs all of them once, so that a busy machine slows all alike.

    `first` precedes each act and is not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            first()
            started = time.perf_counter()
            act()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def peak_mb(act: Callable[..., object], *args: object) -> float:
    """MB (10⁶ bytes) by which `act(*args)` raises the resident memory of a fresh process at its highest. Linux only.

    `act` must be importable by the child: a function of a module.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_growth_mb, act, args).result()


def highest_mb() -> float:
    """MB of resident memory of this process at its highest. Linux only."""
    return _memory_kb("VmHWM") * 1024 / 1e6


def _growth_mb(act: Callable[..., object], args: tuple[object, ...]) -> float:
    before = _memory_kb("VmRSS")
    act(*args)
    return (_memory_kb("VmHWM") - before) * 1024 / 1e6


def _memory_kb(field: str) -> int:
    """A line of /proc/self/status. Unlike getrusage, its peak doesn't start at the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
