"""Trainings of the tiny job in processes of their own, which may be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.training import tiny_job
from tests.training.tiny_job import Point, curve

ROOT = Path(__file__).parents[2]
QUICK = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    # Ray's controller looks at its workers every two seconds, which is most of what a tiny job takes
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}


def start(
    out: str,
    job: Mapping[str, Any],
    config: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    launcher: tuple[str, ...] = (sys.executable,),
) -> "subprocess.Popen[str]":
    """A driver in a session of its own, so that a signal reaches it alone."""
    return subprocess.Popen(
        [*launcher, tiny_job.__file__, out, json.dumps(job), json.dumps({"tracking": False} | dict(config))],
        env=os.environ | QUICK | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(driver: "subprocess.Popen[str]", timeout_s: float = 280) -> dict[str, Any]:
    """What the driver says in the end."""
    try:
        out, err = driver.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        kill_driver(driver)
        raise
    assert driver.returncode == 0, err[-4000:]
    (answer,) = (json.loads(line) for line in out.splitlines() if line.startswith("{"))
    return dict(answer)


def wait_until(path: Path, holds: Callable[[list[Point]], bool], driver: "subprocess.Popen[str]") -> list[Point]:
    """The curve as soon as it holds."""
    deadline = time.monotonic() + 200
    while not holds(points := curve(path)):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, f"{len(points)} points"
        time.sleep(0.05)
    return points


def kill(pid: int) -> None:
    """SIGKILL; a process that has gone already is as good."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_driver(driver: "subprocess.Popen[str]") -> None:
    """And let go of its output, which its children may still hold."""
    kill(driver.pid)
    driver.wait(60)
    for stream in (driver.stdout, driver.stderr):
        if stream is not None:
            stream.close()
