"""What a cluster is paid for, against a sum by hand over a clock that is set by hand."""

import threading

import pytest
from ray.exceptions import RayError

from avs_core.pipelines import cluster_meter
from avs_core.pipelines.cluster_meter import Meter, Nodes, metered, nodes


class Cluster:
    """Nodes and a clock, both set by hand."""

    def __init__(self, cpus: float, gpus: float) -> None:
        self.has, self.now, self.looks = Nodes(cpus, gpus), 0.0, 0

    def count(self) -> Nodes:
        self.looks += 1
        return self.has

    def clock(self) -> float:
        return self.now


def test_a_cluster_is_paid_for_from_the_start_of_the_job_to_its_end() -> None:
    cluster = Cluster(2.0, 0.0)
    cluster.now = 7.0  # Ray took five seconds to start
    meter = Meter(2.0, cluster.count, cluster.clock)
    assert meter.mean(7.0) == Nodes(2.0, 0.0)
    assert meter.mean(42.0) == Nodes(2.0, 0.0)


def test_nodes_that_come_and_go_are_paid_for_as_long_as_they_are_there() -> None:
    cluster = Cluster(0.0, 0.0)
    meter = Meter(0.0, cluster.count, cluster.clock)
    held = [(5.0, 0.0, 0.0), (5.0, 16.0, 1.0), (20.0, 32.0, 4.0), (5.0, 32.0, 4.0), (10.0, 8.0, 0.0)]
    for seconds, cpus, gpus in held:  # seconds until the next look, and what the look before found
        cluster.has = Nodes(cpus, gpus)
        meter.look()
        cluster.now += seconds
    total = sum(seconds for seconds, _, _ in held)
    had = meter.mean(cluster.now)
    assert had.cpus == pytest.approx(sum(seconds * cpus for seconds, cpus, _ in held) / total)
    assert had.gpus == pytest.approx(sum(seconds * gpus for seconds, _, gpus in held) / total)


def test_it_looks_while_the_job_lasts_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_meter, "LOOK_S", 0.01)
    cluster, looked = Cluster(2.0, 0.0), threading.Event()

    def count() -> Nodes:
        if cluster.looks >= 3:
            looked.set()
        return cluster.count()

    with metered(0.0, count):
        assert looked.wait(30)
    assert "meter" not in {thread.name for thread in threading.enumerate()}


def test_a_head_that_is_gone_ends_the_job_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_meter, "LOOK_S", 0.01)
    asked = threading.Event()

    def count() -> Nodes:
        if asked.is_set():
            raise RayError("no head")
        return Nodes(2.0, 1.0)

    with metered(0.0, count) as meter:
        asked.set()
        for thread in threading.enumerate():
            if thread.name == "meter":
                thread.join(30)
    assert meter.mean(1e6) == Nodes(2.0, 1.0)


def test_a_cluster_without_nodes_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"memory": 1.0})
    assert nodes() == Nodes(0.0, 0.0)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 16.0, "GPU": 1.0})
    assert nodes() == Nodes(16.0, 1.0)
