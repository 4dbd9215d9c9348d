"""How a job comes to its Ray; nothing here starts one."""

import pytest

from avs_core.errors import ClusterUnavailable
from avs_core.pipelines import cluster
from avs_core.pipelines.cluster import STARTS, connected, warn_of_no_cpus


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
