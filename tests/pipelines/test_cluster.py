"""How many actors a stage gets, from what the cluster has: the cluster is told, not started."""

import pytest

from avs_core.errors import ClusterUnavailable, ConfigError
from avs_core.pipelines import cluster
from avs_core.pipelines.cluster import STAGE_CPUS, STARTS, connected, size_pools, warn_of_no_cpus


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})


@pytest.mark.usefixtures("two_cpus")
def test_a_pool_that_is_too_large_is_squeezed_into_the_cluster() -> None:
    pools = size_pools(100, "cpu", 8, 4)
    assert (pools.decoders, pools.segmenters) == (8, 4)
    assert 8 * pools.cpus("decode") + 4 * pools.cpus("segment") + pools.cpus("commit") == pytest.approx(2.0)


@pytest.mark.usefixtures("two_cpus")
def test_a_cluster_that_may_grow_is_asked_at_full_price() -> None:
    pools = size_pools(100, "cpu", 8, 4, grow=True)
    assert [pools.cpus(stage) for stage in STAGE_CPUS] == list(STAGE_CPUS.values())


@pytest.mark.usefixtures("two_cpus")
def test_gpus_that_are_not_there_yet_are_asked_for_only_where_they_may_come() -> None:
    with pytest.raises(ConfigError, match="needs a GPU"):
        size_pools(100, "cuda", 8, 4)
    pools = size_pools(100, "cuda", 8, 4, grow=True)
    assert (pools.segmenters, pools.gpus_per_segmenter) == (4, 1.0)
    assert size_pools(100, "auto", 8, 4, grow=True).gpus_per_segmenter == 0.0


@pytest.mark.parametrize(
    ("resources", "grow", "said"), [({}, False, True), ({}, True, False), ({"CPU": 2.0}, False, False)]
)
def test_a_cluster_without_a_cpu_is_warned_of_unless_it_may_grow(
    resources: dict[str, float],
    grow: bool,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: resources)
    warn_of_no_cpus(grow)
    assert ("--grow" in caplog.text) == said


@pytest.mark.parametrize("late", range(STARTS + 1))
def test_a_ray_that_starts_too_slowly_is_tried_again(late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def start(**settings: object) -> None:
        tries.append(settings)
        if len(tries) <= late:
            raise RuntimeError("the current node timed out during startup")

    monkeypatch.setattr(cluster.ray, "init", start)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "_quieten", lambda: None)
    if late < STARTS:
        with connected("local"):
            assert len(tries) == late + 1
    else:
        with pytest.raises(ClusterUnavailable, match=f"did not, {STARTS} times"), connected("local"):
            pass
