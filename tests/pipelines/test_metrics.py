"""What Prometheus sees of a real job on a real Ray; and that the counters and the rows agree."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from avs_core.archive.read import open_archive, open_frames, read_commits
from avs_core.clip import Unit, VideoRef
from avs_core.pipelines.metrics import ALL, DEAD_LETTERS, STAGE_SECONDS, STAGES, WAIT_SECONDS, WAITS
from avs_core.pipelines.stages import new_row
from avs_core.pipelines.wire import unit_from_text

SCRAPES = 120
QUIETLY = ("--json", "--no-tracking", "--no-report")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def test_every_stage_has_its_seconds_in_a_row() -> None:
    row = new_row(Unit(VideoRef("/v.mp4", 1, "f"), 0, 1))
    assert {f"{stage}_s" for stage in STAGES} | {f"{stage}_wait_s" for stage in WAITS} <= row.keys()
    assert unit_from_text(row["unit"]).stop_s == 1


def test_no_two_metrics_share_a_name() -> None:
    assert len({series.exported for series in ALL}) == len(ALL)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A head of its own that serves its metrics: its address, and the port."""
    # short, since sockets lie below it
    folder = tmp_path_factory.mktemp("r")
    gcs, metrics = free_ports(2)
    command = ["start", "--head", f"--port={gcs}", f"--metrics-export-port={metrics}", "--num-cpus=2", "--block"]
    with (folder / "log.txt").open("wb") as log:
        head = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *command, "--include-dashboard=false"],
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            await_answer(metrics, head, folder / "log.txt")
            yield f"127.0.0.1:{gcs}", metrics
        finally:
            head.terminate()
            head.wait(60)


def free_ports(count: int) -> list[int]:
    """Below the ports that Ray gives to its workers."""
    found: list[int] = []
    for port in range(6400 + os.getpid() % 1500, 9900):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports")


def await_answer(port: int, head: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(SCRAPES):
        if head.poll() is not None:
            break
        with socket.socket() as tried:
            if not tried.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(1)
    raise RuntimeError(f"Ray did not start:\n{log.read_text(errors='replace')[-4000:]}")


def scrape(port: int) -> Samples:
    """Our samples: the sum over workers by name and our own labels."""
    ours = {label for series in ALL for label in series.labels}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples: Samples = defaultdict(float)
    for line in lines:
        if line.startswith("ray_avs_"):
            name, _, rest = line.partition("{")
            text, _, value = rest.rpartition("} ")
            pairs = (pair.partition("=") for pair in text.split(","))
            samples[name, frozenset((key, quoted.strip('"')) for key, _, quoted in pairs if key in ours)] += float(
                value
            )
    return samples


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_prometheus_reads_what_the_archive_holds(
    cluster: tuple[str, int], tmp_path: Path, demo_clips: list[Path]
) -> None:
    address, port = cluster
    inputs = tmp_path / "videos"
    inputs.mkdir()
    for clip in demo_clips[:2]:
        (inputs / clip.name).write_bytes(clip.read_bytes())
    (inputs / "page.mp4").write_text("<html>not found</html>")
    archive = str(tmp_path / "archive")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.segment", str(inputs), "--archive", archive, "--address", address, *QUIETLY],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    for _ in range(SCRAPES):
        samples = scrape(port)
        if samples:
            break
        time.sleep(1)

    def value(name: str, **labels: str) -> float:
        return samples[name, frozenset(labels.items())]

    commits = read_commits(archive)
    assert value("ray_avs_videos_total") == result["segmented"] == 2
    assert value("ray_avs_video_seconds_total") == sum(commit.stop_s - commit.start_s for commit in commits)
    assert value("ray_avs_frames_total") == open_frames(archive).count_rows() > 0
    assert value("ray_avs_masks_total") == open_archive(archive).count_rows() > 0
    assert value("ray_avs_units_total", outcome="ok") == len(commits)
    assert value("ray_avs_units_total", outcome="dead") == 1
    assert value(DEAD_LETTERS.exported, error_class="unreadable") == 1
    for stage in STAGES:
        assert value(STAGE_SECONDS.exported, stage=stage) > 0
    for stage in WAITS:
        assert value(WAIT_SECONDS.exported, stage=stage) > 0
    assert value("ray_avs_units_left") == 0
    assert value("ray_avs_gpu_segmenters") == 0
