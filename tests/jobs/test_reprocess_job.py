"""The scheduled job as cron runs it: real Ray, real files, real processes and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avs_core.archive.current import current
from avs_core.archive.lease import holder
from avs_core.archive.read import open_archive, runs
from avs_core.archive.verify import archive_digest, verify

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def start(*arguments: str, verb: str = "reprocess") -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", f"jobs.{verb}", *arguments, "--json", "--no-tracking", "--no-report"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ
    )


def end(job: "subprocess.Popen[str]", code: int = 0) -> dict[str, object]:
    out, err = job.communicate(timeout=280)
    assert job.returncode == code, err
    return dict(json.loads(out.splitlines()[-1])) if out else {"message": err}


@pytest.fixture
def videos(tmp_path: Path, demo_clips: list[Path]) -> Path:
    """Three clips."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for index, clip in enumerate(demo_clips[:3]):
        (folder / f"{index}.mp4").write_bytes(clip.read_bytes())
    return folder


def wait_for_commits(archive: Path, count: int) -> None:
    deadline = time.monotonic() + 200
    while sum(1 for _ in archive.glob("_commits/**/*.json")) < count:
        assert time.monotonic() < deadline, "the job commits nothing"
        time.sleep(0.05)


def test_readers_change_over_when_the_new_run_covers_the_videos(videos: Path, tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    first = end(start(str(videos), "--archive", archive))
    assert (first["segmented"], first["coverage"], first["current"]) == (3, 1.0, first["run_key"])
    rows = open_archive(archive).count_rows()

    os.utime(videos / "0.mp4", (2e9, 2e9))
    touched = end(start(str(videos), "--archive", archive))
    assert (touched["segmented"], touched["touched"], touched["current"]) == (0, 1, first["run_key"])

    # With another threshold one video of three can't be done any more: readers keep what they have.
    good = (videos / "2.mp4").read_bytes()
    (videos / "2.mp4").write_bytes(b"no video any more")
    second = end(start(str(videos), "--archive", archive, "--threshold", "0.6"), code=5)
    assert (second["segmented"], second["lost"], second["switched"]) == (2, 1, False)
    assert second["current"] == first["run_key"] != second["run_key"]
    assert open_archive(archive).count_rows() == rows

    (videos / "2.mp4").write_bytes(good)
    third = end(start(str(videos), "--archive", archive, "--threshold", "0.6"))
    assert (third["segmented"], third["coverage"], third["switched"]) == (1, 1.0, True)
    chosen = current(archive)
    assert chosen is not None
    assert (chosen.run_key, chosen.before) == (second["run_key"], first["run_key"])
    assert set(runs(archive)) == {first["run_key"], second["run_key"]}
    assert not verify(archive).problems


def test_sigterm_lets_it_finish_what_is_in_work(videos: Path, tmp_path: Path, demo_clips: list[Path]) -> None:
    for index in range(12):
        (videos / f"more{index:02}.mp4").write_bytes(demo_clips[index % len(demo_clips)].read_bytes())
    archive, undisturbed = tmp_path / "archive", tmp_path / "undisturbed"
    job = start(str(videos), "--archive", str(archive))
    wait_for_commits(archive, 2)
    job.send_signal(signal.SIGTERM)
    stopped = end(job, code=5)
    assert "SIGTERM" in str(stopped["stopped"])
    left, done = stopped["left"], stopped["segmented"]
    assert isinstance(left, int)
    assert isinstance(done, int)
    assert left > 0
    assert left + done == 15
    assert stopped["failed"] == 0
    assert holder(str(archive), "reprocess") is None  # given back: the next one does not wait
    assert not (archive / "_staged").exists()
    assert end(start(str(videos), "--archive", str(archive)))["segmented"] == left
    end(start(str(videos), "--archive", str(undisturbed)))
    assert archive_digest(str(archive)) == archive_digest(str(undisturbed))


def test_patience_ends(videos: Path, tmp_path: Path, demo_clips: list[Path]) -> None:
    for index in range(12):
        (videos / f"more{index:02}.mp4").write_bytes(demo_clips[index % len(demo_clips)].read_bytes())
    archive = tmp_path / "archive"
    job = start(str(videos), "--archive", str(archive), "--grace-s", "0")
    wait_for_commits(archive, 1)
    job.send_signal(signal.SIGTERM)
    assert "goes on from there" in str(end(job, code=5)["message"])
    assert holder(str(archive), "reprocess") is None
    assert not verify(str(archive)).problems


@pytest.mark.ci_slice
def test_two_schedulers_do_not_double_the_work(videos: Path, tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    first = start(str(videos), "--archive", archive)
    deadline = time.monotonic() + 200
    while not (tmp_path / "archive/_leases/reprocess/00000001.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = end(start(str(videos), "--archive", archive), code=4)
    assert "one job at a time" in str(second["message"])
    assert end(first)["segmented"] == 3


def test_a_job_whose_time_is_up_begins_nothing(videos: Path, tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    done = end(start(str(videos), "--archive", archive, "--budget", "0.001", "--price-hour", "1000"), code=5)
    assert (done["segmented"], done["left"]) == (0, 3)
    assert "budget" in str(done["stopped"])
