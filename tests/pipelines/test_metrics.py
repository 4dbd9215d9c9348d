"""What Prometheus sees of a real job on a real Ray; and that the counters and the rows agree."""

import json
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
from avs_core.pipelines import metrics
from avs_core.pipelines.metrics import (
    ALL,
    DEAD_LETTERS,
    GPU_BUSY_SECONDS,
    GPU_SEGMENTERS,
    STAGE_SECONDS,
    STAGES,
    UNITS_LEFT,
    WAIT_SECONDS,
    WAITS,
)
from avs_core.pipelines.stages import OK, STOPPED, WHOLE, new_row
from avs_core.pipelines.wire import unit_from_text
from tests import ray_head

SCRAPES = 120
QUIETLY = ("--json", "--no-tracking", "--no-report")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def test_every_stage_has_its_seconds_in_a_row() -> None:
    row = new_row(Unit(VideoRef("/v.mp4", 1, "f"), 0, 1))
    assert {f"{stage}_s" for stage in STAGES} | {f"{stage}_wait_s" for stage in WAITS} <= row.keys()
    assert unit_from_text(row["unit"]).stop_s == 1


def test_no_two_metrics_share_a_name() -> None:
    assert len({series.exported for series in ALL}) == len(ALL)


def test_what_is_left_counts_all_rounds_and_ends_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, list[float]] = defaultdict(list)
    outcomes: list[str] = []

    class Recorded:
        def __init__(self, name: str, about: str, labels: tuple[str, ...]) -> None:
            self.name = name

        def set(self, value: float) -> None:
            shown[self.name].append(value)

        def inc(self, value: float, labels: dict[str, str]) -> None:
            shown[self.name].append(value)
            outcomes.extend(value for name, value in labels.items() if name == "outcome")

    monkeypatch.setattr(metrics, "Gauge", Recorded)
    monkeypatch.setattr(metrics, "Counter", Recorded)
    unit = Unit(VideoRef("/v.mp4", 1, "f"), 0, 1)
    with metrics.JobMetrics() as counted:
        counted.expect(units=2, gpu_segmenters=1)
        counted.add(new_row(unit), unit)  # the other one waits to run alone
        counted.expect(units=1, gpu_segmenters=2)
        counted.add(new_row(unit) | {"segment_s": 1.5}, unit)
        counted.add(new_row(unit) | {"segment_s": 0.25}, unit)
        counted.expect(units=2, gpu_segmenters=2)
        counted.add(new_row(unit) | {"status": STOPPED}, unit)  # it never began
        counted.add(new_row(unit) | {"status": WHOLE}, unit)  # it was done before, its video is published
    assert shown[GPU_BUSY_SECONDS.name] == [1.5, 0.25]
    assert shown[UNITS_LEFT.name] == [2, 1, 2, 1, 0, 2, 1, 0, 0]
    assert outcomes == [OK] * 3
    assert shown[GPU_SEGMENTERS.name] == [1, 2, 2, 0]


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ray_head.RayHead]:
    """A Ray that serves its metrics."""
    with ray_head.running(tmp_path_factory.mktemp("r"), *ray_head.free_ports(1), "--num-cpus=2") as started:
        yield started


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
    head: ray_head.RayHead, tmp_path: Path, demo_clips: list[Path]
) -> None:
    inputs = tmp_path / "videos"
    inputs.mkdir()
    for clip in demo_clips[:2]:
        (inputs / clip.name).write_bytes(clip.read_bytes())
    (inputs / "page.mp4").write_text("<html>not found</html>")
    archive = str(tmp_path / "archive")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.segment", str(inputs), "--archive", archive, "--address", head.address, *QUIETLY],
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    for _ in range(SCRAPES):
        samples = scrape(head.metrics_port)
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
