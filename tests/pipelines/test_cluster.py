"""How a job comes to its Ray, and what the user hears of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from avs_core.errors import AvsError, ClusterUnavailable, ConfigError
from avs_core.pipelines import cluster
from avs_core.pipelines.cluster import STARTS, connected, warn_of_no_cpus


@pytest.mark.parametrize(
    ("resources", "grow", "said"), [({}, False, True), ({}, True, False), ({"CPU": 2.0}, False, False)]
)
def test_a_cluster_without_a_cpu_is_warned_of_unless_it_may_grow(
    resources: dict[str, float],
    grow: bool,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: resources)
    warn_of_no_cpus(grow)
    assert ("--grow" in caplog.text) == said


@pytest.mark.parametrize("late", range(STARTS + 1))
def test_a_ray_that_starts_too_slowly_is_tried_again(late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def start(**settings: object) -> None:
        tries.append(settings)
        if len(tries) <= late:
            raise RuntimeError("the current node timed out during startup")

    monkeypatch.setattr(cluster.ray, "init", start)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "_quieten", lambda: None)
    if late < STARTS:
        with connected("local"):
            assert len(tries) == late + 1
    else:
        with pytest.raises(ClusterUnavailable, match=f"did not, {STARTS} times"), connected("local"):
            pass


TOLD_TOO_EARLY = """
import os, signal, sys, threading, time
import ray
from avs_core.pipelines.cluster import connected

told = []

def ours(number, frame):
    told.append(number)
    if {interrupts}:
        raise KeyboardInterrupt

signal.signal(signal.SIGTERM, ours)

def tell():
    while signal.getsignal(signal.SIGTERM) is ours:  # until Ray has put its own in the place
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=tell, daemon=True).start()
try:
    with connected("local"):
        print("connected", ray.is_initialized(), len(told), signal.getsignal(signal.SIGTERM) is ours)
except KeyboardInterrupt:
    print("interrupted", ray.is_initialized(), len(told))
"""


@pytest.mark.parametrize(
    ("interrupts", "said"), [(True, "interrupted False 1"), (False, "connected True 1 True")], ids=["segment", "brake"]
)
@pytest.mark.integration
def test_a_job_that_is_told_to_stop_while_ray_starts_stops_in_its_own_way(interrupts: bool, said: str) -> None:
    """Ray's own handler ended it with exit code 15 and without a word."""
    script = TOLD_TOO_EARLY.format(interrupts=interrupts)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0
    assert said in (done.stdout + done.stderr).splitlines(), done.stderr  # within the block all goes to the latter


@pytest.mark.parametrize(("fault", "kind"), [(ConnectionError, ClusterUnavailable), (ValueError, ConfigError)])
def test_a_cluster_that_is_away_is_no_wrong_usage(
    fault: type[Exception], kind: type[AvsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**_: object) -> None:
        raise fault("as Ray says it")

    monkeypatch.setattr(cluster.ray, "init", start)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    with pytest.raises(kind, match="as Ray says it"), connected("head:6379"):
        pass


KILLED_ONCE = """
import os
import signal
from pathlib import Path
import ray
from avs_core.pipelines.cluster import connected

@ray.remote(num_cpus=0, max_restarts=1, max_task_retries=1)
class Victim:
    def tried(self, mark):
        if not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "twice"

with connected("local"):
    answer = ray.get(Victim.remote().tried.remote({mark!r}))
print(answer)
"""


@pytest.mark.integration
def test_what_ray_says_of_a_killed_worker_is_no_part_of_the_answer(tmp_path: Path) -> None:
    script = KILLED_ONCE.format(mark=str(tmp_path / "mark"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "twice\n"
    assert "(raylet)" in done.stderr
