"""A disk that fills up under the job, and two drivers on one archive: side by side, or one that slept meanwhile."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from avs_core import storage
from avs_core.archive.current import current
from avs_core.archive.layout import CURRENT
from avs_core.archive.read import runs
from avs_core.archive.removal import remove_run
from tests.chaos.scene import DONE, PAGE, QUIETLY, UNITS, Outcome, Scene, descendants, end, start

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture
def small_disk(tmp_path: Path, undisturbed: tuple[Outcome, float]) -> Iterator[Path]:
    """A file system of its own, in memory, for half of what the archive takes."""
    (place := tmp_path / "disk").mkdir()
    half = f"size={undisturbed[0].pages * PAGE // 2}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", half, "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system can't be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_the_disk_is_full(small_disk: Path, scene_at: Callable[[str], Scene]) -> None:
    scene = scene_at(str(small_disk / "archive"))
    scene.toll.fault, scene.toll.injected = "the archive's disk is full", 1
    ended = end(scene.start(), 1)
    assert 0 < scene.commits() < len(scene.expected.done)
    assert ended.get("failed") or "No space left" in ended["message"]
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    scene.recover()


def test_two_drivers_at_once(scene: Scene) -> None:
    scene.toll.fault, scene.toll.injected = "a second driver on the same archive", 1
    for job in [scene.start(), scene.start()]:
        end(job, *DONE)
    scene.recover()


@pytest.mark.parametrize("asleep", ["driver", "machine"])
def test_a_scheduler_sleeps_for_longer_than_its_lease(asleep: str, scene: Scene) -> None:
    """The next one follows and chooses for the readers; who wakes up ends, and leaves them what they have."""
    scene.toll.fault, scene.toll.injected = f"a scheduler's {asleep} stands still until another has followed", 1
    command = ("reprocess", scene.videos, "--archive", scene.archive, *QUIETLY, *UNITS)
    late = start(*command, "--threshold", "0.6")
    scene.wait_for(late, 1)
    sleepers = [late.pid, *(pid for pid, _ in descendants(late.pid) if asleep == "machine")]
    for pid in sleepers:
        os.kill(pid, signal.SIGSTOP)
    try:
        followed = end(start(*command), *DONE)
    finally:
        for pid in reversed(sleepers):
            os.kill(pid, signal.SIGCONT)
    woken = end(late, 1, 5)
    chosen = current(scene.archive)
    assert chosen is not None
    assert chosen.run_key == followed["current"] == followed["run_key"], woken
    (left,) = set(runs(scene.archive)) - {chosen.run_key}
    remove_run(scene.archive, left)
    for choice in storage.list_files(storage.join(scene.archive, CURRENT)):  # nobody had to choose for the undisturbed
        storage.delete(choice.uri)
    scene.check()
