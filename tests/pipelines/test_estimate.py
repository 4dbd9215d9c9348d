"""Estimates from what jobs measured, through a real archive."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from avs_core.archive.stats import JobStats, Rates, rates, record_stats
from avs_core.clip import VideoRef
from avs_core.pipelines.estimate import estimate
from avs_core.pipelines.plan import Plan, State
from tests.archive import sample

JOB = JobStats(
    started=datetime(2026, 1, 1, tzinfo=UTC),
    seconds=100.0,
    videos=2,
    bytes=1_000,
    video_seconds=200.0,
    instances=5,
    decode_s=20.0,
    segment_s=60.0,
    commit_s=4.0,
    decoders=2,
    segmenters=1,
    gpus=0,
)


@pytest.fixture
def archive(tmp_path: Path) -> str:
    return str(tmp_path / "archive")


def test_nothing_measured_nothing_told(archive: str) -> None:
    assert rates(archive, "r0") is None
    sample.opened(archive)
    assert rates(archive, "r0") is None


def test_rates_are_those_of_the_run_and_else_of_the_others(archive: str) -> None:
    one, other = sample.opened(archive), sample.RECORD.model_copy(update={"model": "large"})
    record_stats(archive, one.run_key, JOB)
    on_cpu = Rates(video_s_per_byte=0.2, wall_s=0.5, cpu_s=0.42, gpu_s=0.0)
    assert rates(archive, one.run_key) == on_cpu
    second = sample.opened(archive, other)
    assert rates(archive, second.run_key) == on_cpu
    record_stats(archive, second.run_key, JOB.model_copy(update={"gpus": 1}))
    assert rates(archive, second.run_key) == Rates(video_s_per_byte=0.2, wall_s=0.5, cpu_s=0.12, gpu_s=0.3)
    assert rates(archive, one.run_key) == on_cpu


def test_an_estimate_counts_what_is_to_be_segmented() -> None:
    videos = [VideoRef(f"/{name}.mp4", 36_000, "f") for name in "abcd"]
    plan = Plan(videos, [State.NEW, State.DONE, State.STALE, State.TOUCHED])
    found = estimate(plan, Rates(video_s_per_byte=0.2, wall_s=0.5, cpu_s=0.25, gpu_s=0.125), 2.0, 8.0)
    assert (found.videos, found.bytes, found.video_hours) == (2, 72_000, 4.0)
    assert (found.hours, found.cpu_hours, found.gpu_hours, found.cost) == (2.0, 1.0, 0.5, 6.0)
    assert estimate(plan, Rates(0.2, 0.5, 0.25, 0.125)).cost is None
