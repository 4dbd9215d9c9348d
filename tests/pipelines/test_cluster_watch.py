"""A job that stands still on a cluster that lost a node: how long it waits, and how it ends."""

import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from ray.core.generated.common_pb2 import NodeDeathInfo

from avs_core.errors import ClusterShrank
from avs_core.pipelines import cluster_watch
from avs_core.pipelines.cluster_watch import PLANNED, Census, Patience, patient
from avs_core.pipelines.interrupt import interruptible


class Cluster:
    """Nodes by letter, and a clock, both set by hand."""

    def __init__(self, alive: str) -> None:
        self.alive, self.given_back, self.now = alive, "", 0.0

    def count(self) -> Census:
        return Census(frozenset(self.alive), frozenset(self.given_back))

    def clock(self) -> float:
        return self.now


@pytest.fixture
def cluster() -> Cluster:
    return Cluster("abc")


@pytest.fixture
def patience(cluster: Cluster) -> Patience:
    return Patience(10.0, cluster.count, cluster.clock)


def after(cluster: Cluster, patience: Patience, seconds: float, alive: str, given_back: str = "") -> bool:
    cluster.now += seconds
    cluster.alive, cluster.given_back = alive, given_back
    return patience.over()


def test_a_whole_cluster_may_take_its_time(cluster: Cluster, patience: Patience) -> None:
    assert not after(cluster, patience, 1e6, "abc")
    assert not after(cluster, patience, 1e6, "abcd")


def test_patience_with_a_lost_node_ends(cluster: Cluster, patience: Patience) -> None:
    assert not after(cluster, patience, 9.0, "abc")
    assert not after(cluster, patience, 9.0, "ab")
    assert patience.missing == 1
    assert after(cluster, patience, 2.0, "ab")


def test_whoever_gets_on_without_the_node_may_go_on(cluster: Cluster, patience: Patience) -> None:
    for _ in range(9):
        assert not after(cluster, patience, 8.0, "ab")
        patience.moved()
    assert after(cluster, patience, 11.0, "ab")


def test_another_node_takes_its_place(cluster: Cluster, patience: Patience) -> None:
    assert not after(cluster, patience, 0.0, "ab")
    assert not after(cluster, patience, 9.0, "abd")
    assert not after(cluster, patience, 1e6, "abd")
    assert not after(cluster, patience, 9.0, "ab")
    assert after(cluster, patience, 2.0, "ab")


def test_a_node_that_is_given_back_is_not_missed(cluster: Cluster, patience: Patience) -> None:
    assert not after(cluster, patience, 0.0, "ab", given_back="c")
    assert not after(cluster, patience, 1e6, "ab", given_back="c")
    assert not after(cluster, patience, 0.0, "a", given_back="c")
    assert after(cluster, patience, 11.0, "a", given_back="c")


def test_rays_numbers_for_planned_ends_are_ours() -> None:
    assert PLANNED == (NodeDeathInfo.EXPECTED_TERMINATION, NodeDeathInfo.AUTOSCALER_DRAIN_IDLE)


def test_the_job_is_told_wherever_it_waits(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_watch, "LOOK_S", 0.02)
    threading.Timer(0.1, setattr, (cluster, "alive", "ab")).start()
    with pytest.raises(ClusterShrank, match=r"for 0 s, 1 of the cluster's nodes"), patient(0.1, cluster.count):
        threading.Event().wait(60)


@pytest.fixture
def sigint() -> Iterator[None]:
    """What SIGINT does is as it was, afterwards: who runs these tests in the background ignores it."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_an_interrupt_of_the_user_stays_one(cluster: Cluster) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), patient(0.1, cluster.count):
        signal.raise_signal(signal.SIGINT)


def _interrupted(interrupt: Callable[[], None]) -> None:
    threading.Thread(target=interrupt).start()
    threading.Event().wait(60)


@pytest.mark.usefixtures("sigint")
def test_a_job_that_is_deaf_to_ctrl_c_is_interrupted_all_the_same() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt), interruptible() as interrupt:
        _interrupted(interrupt)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
