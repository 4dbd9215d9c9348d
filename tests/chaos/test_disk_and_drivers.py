"""A disk that fills up under the job, and two drivers that do the same work at the same time."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.scene import DONE, PAGE, Outcome, Scene, end

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
