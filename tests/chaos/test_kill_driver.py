"""The driver is killed with SIGKILL at random moments and run again: the archive must not show it."""

import random
import signal
import time

import pytest

from tests.chaos.scene import Scene, end

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

SEED = 20260


def kill_until_done(scene: Scene, kills: int, draw: random.Random) -> None:
    """Kill that often, each time after a random part of the job's length; then let it come to its end.

    At the last but one unit at the latest: on a machine that has less to do than it had before, jobs are shorter.
    """
    for _ in range(kills):
        job, until = scene.start(), time.monotonic() + draw.uniform(0.05, 1.0) * scene.undisturbed_s
        while job.poll() is None and time.monotonic() < until and scene.commits() < scene.expected.units - 1:
            time.sleep(0.1)
        scene.toll.injected += job.poll() is None
        job.send_signal(signal.SIGKILL)
        job.communicate(timeout=60)
    assert scene.toll.injected, "every job had ended before it was struck"
    scene.recover()


@pytest.mark.ci_slice
def test_two_kills(scene_on_disk: Scene) -> None:
    scene_on_disk.toll.fault = "kill -9 of the driver, twice"
    kill_until_done(scene_on_disk, 2, random.Random(SEED))


@pytest.mark.parametrize("trial", range(4))
def test_three_kills_each(trial: int, scene: Scene) -> None:
    scene.toll.fault = f"kill -9 of the driver, three times (draw {trial}), archive on S3"
    kill_until_done(scene, 3, random.Random(SEED + 1 + trial))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_says_so_and_can_go_on(how: signal.Signals, scene_on_disk: Scene) -> None:
    scene_on_disk.toll.fault, scene_on_disk.toll.injected = f"{how.name} to the driver", 1
    job = scene_on_disk.start()
    time.sleep(scene_on_disk.undisturbed_s / 2)
    job.send_signal(how)
    assert "goes on from there" in end(job, 130)["message"]
    scene_on_disk.recover()
