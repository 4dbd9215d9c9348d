"""Units that kill their workers, on a real Ray: who is blamed, and what the archive looks like."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from avs_core.archive.dead import retry_letters
from avs_core.archive.read import dead_letters, read_commits, read_letters
from avs_core.archive.verify import archive_digest, verify
from tests.pipelines.guilty import SLOW_S
from tests.pipelines.losing_a_node import ROWS
from tests.pipelines.standing_apart import NODES, TRIED

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def videos(folder: Path, clips: list[Path], *names: str) -> Path:
    folder.mkdir()
    for name, clip in zip(names, clips * len(names), strict=False):
        shutil.copy(clip, folder / f"{name}.mp4")
    return folder


def start(inputs: Path, archive: Path, stage: str = "Killing", **settings: object) -> "subprocess.Popen[str]":
    """The job in a session of its own, so that only the driver gets a signal."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pipelines.guilty", stage, str(inputs), str(archive), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(inputs: Path, archive: Path, stage: str = "Killing", **settings: object) -> dict[str, int]:
    job = start(inputs, archive, stage, **settings)
    out, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    return dict(json.loads(out.splitlines()[-1]))


def letters(archive: Path) -> dict[str, tuple[str, str, int]]:
    rows = dead_letters(str(archive)).to_pylist()
    return {Path(row["video_uri"]).stem: (row["error_class"], row["stage"], row["attempts"]) for row in rows}


def done(archive: Path) -> set[str]:
    return {Path(commit.video.uri).stem for commit in read_commits(str(archive))}


def tried(archive: Path) -> list[str]:
    """What is on record: number and class of each attempt."""
    return sorted(path.name.partition(".")[2] for path in archive.glob("_attempts/*/*.json"))


@pytest.mark.ci_slice
def test_the_guilty_is_dead_and_its_neighbours_are_done(tmp_path: Path, demo_clips: list[Path]) -> None:
    inputs, archive = videos(tmp_path / "in", demo_clips, "a", "b-guilty", "c"), tmp_path / "archive"
    result = finish(inputs, archive)
    assert done(archive) == {"a", "c"}
    assert letters(archive) == {"b-guilty": ("worker_crash", "segment", 2)}
    assert tried(archive) == ["00001.worker_crash.json", "00002.worker_crash.json"]
    assert (inputs / "b-guilty.killed").read_text() == "xx"
    assert (result["segmented"], result["dead"], result["failed"]) == (2, 1, 0)
    assert not verify(str(archive)).problems


def test_suspected_in_vain_or_killed_with_its_driver_a_unit_leaves_the_archive_as_if_nothing_had_been(
    tmp_path: Path, demo_clips: list[Path]
) -> None:
    inputs = videos(tmp_path / "in", demo_clips, "a-once", "b", "c-slow", "d-slow")
    finish(inputs, tmp_path / "undisturbed", "Peaceful")
    archive = tmp_path / "archive"
    for _ in range(2):
        job = start(inputs, archive)
        wait_for(lambda: (inputs / "a-once.killed").exists(), job)
        time.sleep(SLOW_S)
        job.send_signal(signal.SIGKILL)
        job.communicate(timeout=60)
    finish(inputs, archive)
    assert letters(archive) == {}
    assert done(archive) == {"a-once", "b", "c-slow", "d-slow"}
    assert archive_digest(str(archive)) == archive_digest(str(tmp_path / "undisturbed"))


def test_a_suspect_of_an_earlier_driver_is_not_let_near_the_others_and_its_attempts_are_counted_on(
    tmp_path: Path, demo_clips: list[Path]
) -> None:
    inputs, archive = videos(tmp_path / "in", demo_clips, "a", "b-guilty", "c-slow"), tmp_path / "archive"
    job = start(inputs, archive)
    wait_for(lambda: tried(archive), job)
    job.send_signal(signal.SIGKILL)
    job.communicate(timeout=60)
    assert letters(archive) == {}
    before = len((inputs / "b-guilty.killed").read_text())
    finish(inputs, archive)
    assert len((inputs / "b-guilty.killed").read_text()) == before + 1
    assert letters(archive) == {"b-guilty": ("worker_crash", "segment", 2)}
    whole = archive_digest(str(archive))

    retry_letters(str(archive), read_letters(str(archive)))
    finish(inputs, archive)
    assert letters(archive) == {"b-guilty": ("worker_crash", "segment", 3)}
    assert archive_digest(str(archive)) == whole


def test_who_stands_still_while_probed_keeps_no_round_waiting(tmp_path: Path, demo_clips: list[Path]) -> None:
    inputs = videos(tmp_path / "in", demo_clips, "a-hanging", "b", "c-hanging", "d", "e")
    archive = tmp_path / "archive"
    result = finish(inputs, archive, "Peaceful", first_videos=2, decode_stall_s=3.0)
    assert (result["segmented"], result["dead"], result["failed"]) == (3, 2, 0)
    assert letters(archive) == dict.fromkeys(("a-hanging", "c-hanging"), ("timeout", "probe", 2))
    committed = max(path.stat().st_mtime for path in archive.glob("_commits/**/*.json"))
    second_tries = [path.stat().st_mtime for path in archive.glob("_attempts/*/*.00002.timeout.json")]
    assert len(second_tries) == 2
    assert min(second_tries) > committed


def test_a_video_of_which_all_is_staged_and_whose_publisher_died_is_published_by_the_next_job(
    tmp_path: Path, demo_clips: list[Path]
) -> None:
    inputs, archive = videos(tmp_path / "in", demo_clips, "a", "b"), tmp_path / "archive"
    finish(inputs, archive, "Peaceful", unit_s=5, staging=True)
    assert done(archive) == set()
    assert finish(inputs, archive, "Peaceful", unit_s=5)["segmented"] == 2
    finish(inputs, tmp_path / "undisturbed", "Peaceful", unit_s=5)
    assert archive_digest(str(archive)) == archive_digest(str(tmp_path / "undisturbed"))


def test_a_job_whose_dead_are_too_many_takes_up_no_more_and_ends(tmp_path: Path, demo_clips: list[Path]) -> None:
    inputs = videos(tmp_path / "in", demo_clips, "a")
    for number in range(300):
        (inputs / f"broken{number:02}.mp4").write_bytes(b"not a video at all" * 100)
    archive, limits = tmp_path / "archive", {"judged_every": 10, "judged_from": 20, "max_dead_share": 0.01}
    job = start(inputs, archive, "Peaceful", **limits)
    _, err = job.communicate(timeout=300)
    assert job.returncode == 1
    assert "TooManyDeadLetters: at most 1% of a job's videos may be dead" in err
    assert "Exception ignored" not in err
    assert 10 <= len(letters(archive)) < 300
    assert not verify(str(archive)).problems


def test_suspects_are_tried_on_all_nodes_and_one_at_a_time_on_each() -> None:
    command = [sys.executable, "-m", "tests.pipelines.standing_apart"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    tries: dict[str, list[tuple[float, float]]] = {}
    for node, _, began, ended in json.loads(done.stdout.splitlines()[-1]):
        tries.setdefault(node, []).append((float(began), float(ended)))
    assert len(tries) == NODES
    assert sum(map(len, tries.values())) == TRIED
    for one in map(sorted, tries.values()):
        assert all(ended <= began for (_, ended), (began, _) in pairwise(one)), one


def test_workers_that_never_live_end_the_job_with_the_reason_and_blame_no_video(
    tmp_path: Path, demo_clips: list[Path]
) -> None:
    inputs, archive = videos(tmp_path / "in", demo_clips, "a"), tmp_path / "archive"
    job = start(inputs, archive, "Stillborn")
    _, err = job.communicate(timeout=500)
    assert "WorkerUnavailable: a worker must live until it takes up a unit" in err
    assert (letters(archive), tried(archive)) == ({}, [])


def test_a_node_that_is_lost_makes_nobody_a_suspect_and_loses_no_row() -> None:
    command = [sys.executable, "-m", "tests.pipelines.losing_a_node"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["lost"]
    assert len(set(told["units"])) == ROWS
    assert told["ends"] == ["ok"] * ROWS


def wait_for(seen: Callable[[], object], job: "subprocess.Popen[str]") -> None:
    while not seen():
        assert job.poll() is None, job.communicate()[1]
        time.sleep(0.1)
