"""Estimates from what jobs measured, through a real archive."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from avs_core.archive.stats import JobStats, Rates, rates, record_stats, stats_folder
from avs_core.clip import VideoRef
from avs_core.errors import InputError
from avs_core.pipelines.estimate import estimate
from avs_core.pipelines.plan import Plan, State, make_plan
from avs_core.pipelines.provenance import software
from avs_core.pipelines.schedule_config import HOUR_S
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
    cluster_cpus=2.0,
    cluster_gpus=0.0,
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
    on_cpu = Rates(0.2, wall_s=0.5, cpu_s=1.0, gpu_s=0.0, busy_cpu_s=0.42, busy_gpu_s=0.0)
    assert rates(archive, one.run_key) == on_cpu
    second = sample.opened(archive, other)
    assert rates(archive, second.run_key) == on_cpu
    record_stats(archive, second.run_key, JOB.model_copy(update={"gpus": 1, "cluster_cpus": 8, "cluster_gpus": 1.5}))
    on_gpu = Rates(0.2, wall_s=0.5, cpu_s=4.0, gpu_s=0.75, busy_cpu_s=0.12, busy_gpu_s=0.3)
    assert rates(archive, second.run_key) == on_gpu
    assert rates(archive, one.run_key) == on_cpu


def test_a_job_is_charged_for_its_cluster_as_long_as_it_lasts() -> None:
    job = JOB.model_copy(update={"seconds": 42.6, "decode_s": 4.0, "segment_s": 20.6, "commit_s": 0.2})  # results.md
    assert (job.paid_cpu_s, job.busy_cpu_s) == pytest.approx((85.2, 24.8))


def test_records_of_before_the_cluster_was_looked_at_are_read(archive: str) -> None:
    one = sample.opened(archive)
    record_stats(archive, one.run_key, JOB.model_copy(update={"gpus": 1}))
    (file,) = (Path(archive) / stats_folder(one.run_key)).iterdir()
    old = json.loads(file.read_text())
    del old["cluster_cpus"], old["cluster_gpus"]
    file.write_text(json.dumps(old))
    # the GPUs that were held are known; of the CPUs no more than those at work
    assert rates(archive, one.run_key) == Rates(0.2, wall_s=0.5, cpu_s=0.12, gpu_s=0.5, busy_cpu_s=0.12, busy_gpu_s=0.3)


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_that_can_not_be_is_refused(price: float) -> None:
    with pytest.raises(InputError, match="price of an hour must be 0 or more"):
        estimate(Plan([], []), Rates(0.2, 0.5, 0.25, 0.125, 0.125, 0.0625), 2.0, price)


def test_an_estimate_counts_what_is_to_be_segmented() -> None:
    videos = [VideoRef(f"/{name}.mp4", 36_000, "f") for name in "abcd"]
    plan = Plan(videos, [State.NEW, State.DONE, State.STALE, State.TOUCHED])
    measured = Rates(0.2, wall_s=0.5, cpu_s=0.25, gpu_s=0.125, busy_cpu_s=0.125, busy_gpu_s=0.0625)
    found = estimate(plan, measured, 2.0, 8.0)
    assert (found.videos, found.bytes, found.video_hours) == (2, 72_000, 4.0)
    assert (found.hours, found.cpu_hours, found.gpu_hours, found.cost) == (2.0, 1.0, 0.5, 6.0)
    assert (found.busy_cpu_hours, found.busy_gpu_hours) == (0.5, 0.25)
    assert estimate(plan, measured).cost is None


def test_of_a_video_that_is_begun_what_is_left_is_estimated(archive: str) -> None:
    film, other = sample.video("film"), sample.video("other")
    sample.commit(writer := sample.opened(archive, software=software()), sample.units(film, 4)[0])
    sample.commit(writer, sample.units(film, 4)[2])
    writer.dead_letter(sample.units(film, 4)[3], "corrupt", "", "decode")
    plan = make_plan([film, other], archive, writer.run_key)
    assert plan.left == {film.uri: 0.25}
    measured = Rates(HOUR_S, wall_s=1.0, cpu_s=1.0, gpu_s=1.0, busy_cpu_s=1.0, busy_gpu_s=1.0)
    found = estimate(plan, measured)
    assert found.video_hours == pytest.approx(film.size / 4 + other.size)
    assert found.bytes == film.size + other.size
