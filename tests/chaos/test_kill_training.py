"""Training processes are killed with SIGKILL, alone and on Ray: the loss curve must not show it.

Tolerance: none for one process, whose curve is compared bit for bit; 1e-5 of a loss for several, which sum in another
order than the one process they are compared with.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from avs_core.training.checkpoints import Checkpoints
from tests.training.driving import finish, kill, kill_driver, start, wait_until
from tests.training.tiny_job import Point, curve, global_losses

STEPS, EVERY = 40, 5
LOOP = {"steps": STEPS, "lr": 0.05, "warm_up": 4, "checkpoint_every": EVERY, "validate_every": 20}
TOLERANCE = 1e-5


def job(folder: Path, pause_s: float = 0.0) -> dict[str, Any]:
    return {"loop": LOOP, "norm": False, "pause_s": pause_s, "curve": str(folder / "curve.jsonl")}


def at(step: int, points: list[Point]) -> bool:
    """Whether a step has been computed."""
    return any(point.step >= step for point in points)


def resumed(points: list[Point]) -> list[int]:
    """The steps at which the first process began anew."""
    steps = [point.step for point in points if point.rank == 0]
    return [step for before, step in pairwise(steps) if step != before + 1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The curve of one process that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(str(folder / "out"), job(folder), {"engine": "alone", "device": "cpu"}))
    losses = global_losses(curve(folder / "curve.jsonl"))
    assert list(losses) == list(range(STEPS))
    return losses


@pytest.fixture
def on_ray(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings of two workers on a Ray of their own, which a killed driver may leave behind for a moment."""
    yield {"workers": "2", "device": "cpu"}
    for point in {point.pid: point for point in curve(tmp_path / "curve.jsonl")}.values():
        kill(point.pid)


@pytest.mark.chaos
@pytest.mark.ci_slice
def test_a_process_alone_is_killed_twice(tmp_path: Path, undisturbed: dict[int, float]) -> None:
    path, config = tmp_path / "curve.jsonl", {"engine": "alone", "device": "cpu"}
    for step in (12, 27):
        driver = start(str(tmp_path / "out"), job(tmp_path, 0.05), config)
        wait_until(path, lambda points, step=step: at(step, points), driver)
        kill_driver(driver)
    finish(start(str(tmp_path / "out"), job(tmp_path), config))
    points = curve(path)
    assert all(step % EVERY == 0 and step > 0 for step in resumed(points)), resumed(points)
    assert len(resumed(points)) == 2
    assert all(point.loss == undisturbed[point.step] for point in points), "every step, also those done twice"


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_one_of_two_ray_workers_is_killed(
    tmp_path: Path, undisturbed: dict[int, float], on_ray: dict[str, Any]
) -> None:
    path = tmp_path / "curve.jsonl"
    driver = start(str(tmp_path / "out"), job(tmp_path, 0.1), on_ray)
    points = wait_until(path, lambda points: at(17, points), driver)
    kill(next(point.pid for point in points if point.rank == 1))
    finish(driver, 500)
    points = curve(path)
    assert len({point.pid for point in points}) == 4, "two workers, and two that took over"
    assert len(resumed(points)) == 1
    assert resumed(points)[0] % EVERY == 0
    assert resumed(points)[0] >= 10, "from a checkpoint, not from the start"
    assert global_losses(points) == pytest.approx(undisturbed, abs=TOLERANCE)
    assert Checkpoints(str(tmp_path / "out" / "tiny"), 2).steps() == [STEPS - EVERY, STEPS]


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_the_driver_of_two_ray_workers_is_killed(
    tmp_path: Path, undisturbed: dict[int, float], on_ray: dict[str, Any]
) -> None:
    path = tmp_path / "curve.jsonl"
    driver = start(str(tmp_path / "out"), job(tmp_path, 0.5), on_ray)  # workers outlive their driver by seconds
    wait_until(path, lambda points: at(17, points), driver)
    kill_driver(driver)
    finish(start(str(tmp_path / "out"), job(tmp_path), on_ray), 500)
    points = curve(path)
    assert resumed(points)
    assert all(step % EVERY == 0 and step >= 10 for step in resumed(points)), resumed(points)
    assert global_losses(points) == pytest.approx(undisturbed, abs=TOLERANCE)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_node_goes_away_and_one_worker_goes_on(tmp_path: Path, undisturbed: dict[int, float]) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        path, config = tmp_path / "curve.jsonl", {"workers": "1:2", "device": "cpu", "address": cluster.address}
        driver = start(str(tmp_path / "out"), job(tmp_path, 0.1), config)
        wait_until(path, lambda points: at(17, points), driver)
        cluster.remove_node(other, allow_graceful=False)
        finish(driver, 600)
    finally:
        cluster.shutdown()
    points = curve(path)
    assert points[0].world == 2
    assert points[-1].world == 1
    assert all(step % EVERY == 0 and step >= 10 for step in resumed(points)), resumed(points)
    assert global_losses(points) == pytest.approx(undisturbed, abs=TOLERANCE)
