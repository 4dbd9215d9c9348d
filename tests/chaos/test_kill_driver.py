"""The driver is killed with SIGKILL at random moments and run again: the archive must not show it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avs_core.archive.verify import archive_digest, verify

SEED = 20260
QUIETLY = ("--json", "--no-tracking", "--no-report")


def start(inputs: Path, archive: Path) -> "subprocess.Popen[str]":
    """The job in a session of its own, so that only the driver gets the signal."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jobs.segment",
            str(inputs),
            "--archive",
            str(archive),
            "--json",
            "--no-tracking",
            "--no-report",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(inputs: Path, archive: Path) -> dict[str, object]:
    job = start(inputs, archive)
    out, err = job.communicate(timeout=240)
    assert job.returncode == 3, err
    return dict(json.loads(out.splitlines()[-1]))


def commits(archive: Path) -> int:
    return sum(1 for path in archive.glob("_commits/**/*.json"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, demo_clips: list[Path]) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    for index, clip in enumerate(demo_clips):
        os.link(clip, folder / f"{index}.mp4") if clip.stat().st_dev == folder.stat().st_dev else (
            folder / f"{index}.mp4"
        ).write_bytes(clip.read_bytes())
    (folder / "broken.mp4").write_bytes(b"not a video at all" * 100)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> tuple[str, float]:
    """The digest of an archive that nobody disturbed, and how long it took, s."""
    archive = tmp_path_factory.mktemp("undisturbed") / "archive"
    started = time.monotonic()
    finish(inputs, archive)
    return archive_digest(str(archive)), time.monotonic() - started


def kill_until_done(inputs: Path, archive: Path, duration_s: float, kills: int, draw: random.Random) -> list[int]:
    """Kill that often, each time after a random part of the job's length; the commits found after each."""
    seen = []
    for _ in range(kills):
        job = start(inputs, archive)
        time.sleep(draw.uniform(0.05, 1.0) * duration_s)
        job.send_signal(signal.SIGKILL)
        job.communicate(timeout=60)
        seen.append(commits(archive))
    return seen


def check(inputs: Path, archive: Path, expected: str) -> None:
    finish(inputs, archive)
    report = verify(str(archive))
    assert not report.problems
    assert archive_digest(str(archive)) == expected


@pytest.mark.chaos
@pytest.mark.ci_slice
@pytest.mark.timeout(600)
def test_two_kills(tmp_path: Path, inputs: Path, undisturbed: tuple[str, float]) -> None:
    digest, duration_s = undisturbed
    kill_until_done(inputs, tmp_path / "archive", duration_s, 2, random.Random(SEED))
    check(inputs, tmp_path / "archive", digest)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("trial", range(4))
def test_three_kills_each(trial: int, tmp_path: Path, inputs: Path, undisturbed: tuple[str, float]) -> None:
    digest, duration_s = undisturbed
    kill_until_done(inputs, tmp_path / "archive", duration_s, 3, random.Random(SEED + 1 + trial))
    check(inputs, tmp_path / "archive", digest)


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_says_so_and_can_go_on(
    how: signal.Signals, tmp_path: Path, inputs: Path, undisturbed: tuple[str, float]
) -> None:
    digest, duration_s = undisturbed
    job = start(inputs, tmp_path / "archive")
    time.sleep(duration_s / 2)
    job.send_signal(how)
    _, err = job.communicate(timeout=120)
    assert job.returncode == 130, err
    assert "goes on from there" in err
    assert "Traceback" not in err
    check(inputs, tmp_path / "archive", digest)
