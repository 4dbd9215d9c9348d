"""How many workers a stage gets and what they ask for, from what the cluster has: it is told, not started."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
from pydantic import ValidationError

from avs_core.clip import Unit, VideoRef
from avs_core.errors import ConfigError
from avs_core.models.bundle import load_bundle
from avs_core.pipelines.flows import ProbeFlows, UnitFlows
from avs_core.pipelines.pool_config import DecodeResources, PoolConfig, Resources, SegmentResources
from avs_core.pipelines.pools import Pool, Pools, size_pools
from avs_core.pipelines.segment import run_record
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import Row, never, new_row

Has = Callable[..., None]
GB = 1e9
GIB = 1 << 30


@pytest.fixture
def cluster_has(monkeypatch: pytest.MonkeyPatch) -> Has:
    """Tell what the nodes of the cluster have: (CPUs, GPUs, bytes of memory)."""

    def tell(*nodes: tuple[float, float, float]) -> None:
        names = ("CPU", "GPU", "memory")
        told = [{name: float(has) for name, has in zip(names, node, strict=True) if has} for node in nodes]
        dead = {"Alive": False, "Resources": {}}
        monkeypatch.setattr("ray.nodes", lambda: [dead, *({"Alive": True, "Resources": has} for has in told)])

    return tell


def config(**settings: Any) -> PoolConfig:
    """As a job asks, with what is not given by default."""
    return SegmentConfig(archive="a", **settings).pool_config()


def counts(pools: Pools) -> tuple[int, int, int]:
    return pools.decode.workers, pools.segment.workers, pools.commit.workers


def asked(pools: Pools, what: str) -> float:
    """Of one thing, by all workers together."""
    return sum(pool.workers * getattr(pool, what) for pool in (pools.decode, pools.segment, pools.commit))


def test_on_a_cluster_that_has_enough_every_worker_asks_for_what_it_always_did(cluster_has: Has) -> None:
    cluster_has((16, 0, 64 * GB))
    pools = size_pools(1000, config(), "auto")
    assert counts(pools) == (8, 8, 2)
    assert [pool.cpus for pool in (pools.decode, pools.segment, pools.commit, pools.alone)] == [0.5, 0.75, 0.25, 0.75]
    assert [pool.gpus for pool in (pools.decode, pools.segment, pools.commit)] == [0, 0, 0]
    assert [pool.memory for pool in (pools.decode, pools.segment, pools.commit)] == [4 * GIB, 0, 0]


def test_committers_follow_the_decoders_and_a_number_that_is_given_wins(cluster_has: Has) -> None:
    cluster_has(*[(16, 0, 100 * GB)] * 8)
    assert counts(size_pools(10_000, config(), "auto")) == (64, 64, 16)
    assert counts(size_pools(10_000, config(decoders=5, segmenters=3), "auto")) == (5, 3, 2)
    assert counts(size_pools(10_000, config(decoders=5, segmenters=3, committers=7), "auto")) == (5, 3, 7)
    assert counts(size_pools(2, config(committers=7), "auto")) == (2, 2, 2)


def test_as_many_suspects_at_a_time_as_nodes_have_room_for_one(cluster_has: Has) -> None:
    cluster_has((0, 0, 64 * GB), *[(8, 0, 64 * GB)] * 3, (2, 0, 64 * GB), (8, 0, 1 * GB))
    assert size_pools(1000, config(), "auto").alone.workers == 4
    assert size_pools(1000, config(segmenters=1, resources={"segment": {"cpus": 6}}), "auto").alone.workers == 3
    cluster_has((2, 0, 1 * GB))
    assert size_pools(1000, config(), "auto").alone.workers == 1


def test_a_pool_that_is_too_large_is_squeezed_into_the_cluster(cluster_has: Has) -> None:
    cluster_has((2, 0, 64 * GB))
    pools = size_pools(100, config(decoders=8, segmenters=4), "cpu")
    assert counts(pools) == (8, 4, 2)
    assert asked(pools, "cpus") == pytest.approx(2.0)


def test_a_cluster_that_may_grow_is_asked_at_full_price(cluster_has: Has) -> None:
    cluster_has((2, 0, 1 * GB))
    pools = size_pools(100, config(decoders=8, segmenters=4, grow=True), "cpu")
    assert [pool.cpus for pool in (pools.decode, pools.segment, pools.commit)] == [0.5, 0.75, 0.25]
    assert pools.decode.memory == pools.alone.memory == 4 * GIB


def test_gpus_that_are_not_there_yet_are_asked_for_only_where_they_may_come(cluster_has: Has) -> None:
    cluster_has((2, 0, 64 * GB))
    with pytest.raises(ConfigError, match="needs a GPU"):
        size_pools(100, config(), "cuda")
    pools = size_pools(100, config(decoders=8, segmenters=4, grow=True), "cuda")
    assert (pools.segment.workers, pools.segment.gpus) == (4, 1.0)
    assert size_pools(100, config(segmenters=4, grow=True), "auto").segment.gpus == 0.0


@pytest.mark.parametrize(
    ("gpus", "nodes", "segmenters"),
    [
        (1.0, (1, 2), 3),
        (0.5, (1, 2), 6),
        (0.3, (1, 1), 6),  # a worker does not take parts of two GPUs
        (0.6, (2,), 2),
        (1 / 3, (1,), 3),
        (0.1, (1,), 10),
        (2.0, (4, 3, 1), 3),  # nor GPUs of two nodes
    ],
)
def test_segmenters_share_a_gpu_or_take_several(
    gpus: float, nodes: tuple[int, ...], segmenters: int, cluster_has: Has
) -> None:
    cluster_has(*((32, has, 200 * GB) for has in nodes))
    pools = size_pools(1000, config(resources={"segment": {"gpus": gpus}}), "auto")
    assert (pools.segment.workers, pools.segment.gpus, pools.alone.gpus) == (segmenters, gpus, gpus)
    assert pools.gpu_segmenters == segmenters
    with pytest.raises(ConfigError, match=rf"{segmenters + 1} segmenters, but .* room for {segmenters}.*--segmenters"):
        size_pools(1000, config(segmenters=segmenters + 1, resources={"segment": {"gpus": gpus}}), "auto")


def test_there_are_no_more_decoders_than_have_memory(cluster_has: Has) -> None:
    cluster_has((16, 0, 22.4 * GB))
    pools = size_pools(1000, config(), "auto")
    assert (pools.decode.workers, pools.decode.memory) == (5, 4 * GIB)
    assert size_pools(1000, config(decode_memory_mb=1024), "auto").decode.workers == 8
    assert size_pools(1000, config(resources={"decode": {"memory_mb": 1024}}), "auto").decode.workers == 8


def test_memory_of_two_nodes_makes_no_room_for_a_decoder_and_that_of_a_head_without_cpus_for_none(
    cluster_has: Has,
) -> None:
    cluster_has((0, 0, 100 * GB), *[(8, 0, 6 * GB)] * 3)
    pools = size_pools(1000, config(), "auto")
    assert (pools.decode.workers, pools.decode.memory) == (3, 4 * GIB)


def test_a_laptop_with_less_memory_than_one_decoder_may_take_gives_what_it_has(cluster_has: Has) -> None:
    cluster_has((4, 0, 2 * GB))
    pools = size_pools(1000, config(), "auto")
    assert pools.decode.workers == 1
    assert 1.9 * GB < pools.decode.memory <= 2 * GB
    assert pools.alone.memory <= 2 * GB
    cluster_has((4, 0, 0))
    pools = size_pools(1000, config(), "auto")
    assert (pools.decode.workers, pools.decode.memory, pools.alone.memory) == (1, 0, 0)


def test_nodes_that_lend_less_memory_than_one_decoder_may_take_have_one_each(cluster_has: Has) -> None:
    cluster_has(*[(2, 0, 4.2 * GB)] * 8)
    pools = size_pools(1000, config(), "auto")
    assert (pools.decode.workers, pools.segment.workers) == (8, 8)
    assert 3.9 * GB < pools.decode.memory <= 4.2 * GB
    for second in (1.5, 2.0):  # two that share the larger one would have less than each may take
        cluster_has((4, 0, 4.2 * GB), (4, 0, second * GB))
        assert size_pools(1000, config(), "auto").decode.workers == 1
    cluster_has((8, 0, 32 * GB), (2, 0, 4.2 * GB))  # a small one beside a large one: nobody gets less for its sake
    pools = size_pools(1000, config(), "auto")
    assert pools.decode.memory == 4 * GIB


def test_decoders_may_ask_for_no_memory(cluster_has: Has) -> None:
    """A cluster that scales brings no node for a worker that asks for memory where it knows of none."""
    cluster_has((1, 0, 16 * GB))
    for grow in (False, True):
        pools = size_pools(1000, config(resources={"decode": {"memory_mb": 0}}, decoders=2, grow=grow), "auto")
        assert (pools.decode.memory, pools.segment.memory, pools.alone.memory) == (0, 0, 0)
        assert pools.decode.workers == 2


def test_memory_limits_nothing_where_none_is_known_or_asked_for(cluster_has: Has) -> None:
    cluster_has(*[(8, 0, 0)] * 10)
    assert size_pools(1000, config(), "auto").decode.workers == 10
    cluster_has(*[(8, 0, 16 * GB)] * 10)
    asks = {"decode": {"memory_mb": 0}, "segment": {"memory_mb": 8000}}
    pools = size_pools(1000, config(resources=asks, segmenters=10), "auto")
    assert pools.decode.workers == 70
    assert pools.alone.memory == pools.segment.memory > 0  # a suspect may be one that died of too little


def test_a_cluster_whose_nodes_are_still_to_come_is_asked_for_one_worker_of_each_stage(cluster_has: Has) -> None:
    cluster_has((0, 0, 16 * GB))
    pools = size_pools(1000, config(), "auto")
    assert counts(pools) == (1, 1, 1)
    assert asked(pools, "cpus") == pytest.approx(1.0)
    assert pools.decode.memory == pools.alone.memory == 4 * GIB


def test_decoders_that_were_asked_for_by_number_share_the_memory_there_is(cluster_has: Has) -> None:
    cluster_has((16, 0, 10 * GB))
    pools = size_pools(1000, config(decoders=8), "auto")
    assert pools.decode.workers == 8
    assert 9 * GB < 8 * pools.decode.memory <= 10 * GB


def test_workers_with_more_cpus_are_fewer(cluster_has: Has) -> None:
    cluster_has((16, 0, 200 * GB))
    pools = size_pools(1000, config(resources={"segment": {"cpus": 4}, "decode": {"cpus": 2}}), "auto")
    assert counts(pools) == (4, 2, 1)
    assert [pool.cpus for pool in (pools.decode, pools.segment)] == pytest.approx([2, 4], rel=0.06)


NODES = ((1, 0, 3 * GB), (2, 0, 8 * GB), (8, 0, 16 * GB), (16, 2, 60 * GB))
ASKS = (
    {},
    {"decode": {"cpus": 5}, "segment": {"cpus": 5, "memory_mb": 6000}},
    {"segment": {"memory_mb": 9000}, "commit": {"cpus": 1, "memory_mb": 3000}},
)


@pytest.mark.parametrize("asks", ASKS)
@pytest.mark.parametrize("decoders", [None, 1, 20])
def test_wherever_decoders_go_every_other_stage_has_room_for_a_worker(
    asks: dict[str, Any], decoders: int | None, cluster_has: Has
) -> None:
    """Decoders start first. Laid as badly as can be, so that they block as many nodes as possible, one is left."""
    for nodes in product(NODES, repeat=2):
        cluster_has(*nodes)
        pools = size_pools(1000, config(decoders=decoders, resources=asks), "cpu")
        assert pools.decode.workers >= 1
        assert decoders is None or pools.decode.workers == decoders
        for what, place in (("cpus", 0), ("memory", 2)):
            need = getattr(pools.segment, what) + getattr(pools.commit, what)
            each = getattr(pools.decode, what)
            if each and need:
                block = sum(max(0, int((node[place] - need + 1e-6) / each) + 1) for node in nodes)
                assert pools.decode.workers < block, (nodes, what)
            assert any(node[place] + 1e-6 >= need for node in nodes)


def test_the_chains_ask_ray_for_what_the_pools_say(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple[int, dict[str, float]]] = {}

    def chained(dataset: object, plan: Any, witness: object, pool: int, **asks: float) -> object:
        seen[plan.name] = pool, asks
        return dataset

    def alone(dataset: object, plans: list[Any], witness: object, pool: int, **asks: float) -> object:
        seen["-".join(["alone", *(plan.name for plan in plans)])] = pool, asks
        return dataset

    monkeypatch.setattr("avs_core.pipelines.flows.watched_chain", chained)
    monkeypatch.setattr("avs_core.pipelines.flows.alone_chain", alone)
    monkeypatch.setattr("avs_core.pipelines.flows.pack_blocks", list)
    monkeypatch.setattr("avs_core.pipelines.flows.outcomes", lambda dataset: iter(()))
    monkeypatch.setattr("avs_core.pipelines.flows.witness", nullcontext)
    pools = Pools(Pool(5, 0.4, memory=7), Pool(3, 0.6, 0.5, 9), Pool(2, 0.2, memory=3), Pool(4, 0.6, 0.5, 19))
    job = SegmentConfig(archive="a", model="tpavi-light")
    record = run_record(job, load_bundle(job.model))
    rows: list[Row] = [new_row(Unit(VideoRef("/v.mp4", 1, "f"), 0, 1))]
    probes, units = ProbeFlows(job, 224, never, pools), UnitFlows(job, record, 224, never, pools)
    for flow in (probes.beside, units.beside, probes.alone, units.alone):
        list(flow(rows))
    assert seen == {
        "probe": (5, {"num_cpus": 0.4, "num_gpus": 0.0, "memory": 7}),
        "decode": (5, {"num_cpus": 0.4, "num_gpus": 0.0, "memory": 7}),
        "segment": (3, {"num_cpus": 0.6, "num_gpus": 0.5, "memory": 9}),
        "commit": (2, {"num_cpus": 0.2, "num_gpus": 0.0, "memory": 3}),
        "alone-probe": (1, {"num_cpus": 0.4, "num_gpus": 0.0, "memory": 7}),
        "alone-decode-segment-commit": (1, {"num_cpus": 0.6, "num_gpus": 0.5, "memory": 19}),
    }


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"segment": {"gpus": 0}}, "greater than or equal to 0.01"),
        ({"segment": {"gpus": 1.5}}, "whole number, got 1.5"),
        ({"decode": {"cpus": 0}}, "greater than or equal to 0.01"),
        ({"decode": {"gpus": 1}}, "Extra inputs"),
        ({"commit": {"memory_mb": 0}}, "greater than or equal to 1"),
        ({"report": {}}, "Extra inputs"),
    ],
)
def test_resources_that_cannot_be_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        SegmentConfig(archive="a", resources=wrong)


def test_a_stage_keeps_its_defaults_where_one_thing_is_given_and_nothing_of_it_names_the_run() -> None:
    asks = Resources(segment=SegmentResources(gpus=0.5), decode=DecodeResources(memory_mb=512))
    job = SegmentConfig(archive="a", model="tpavi-light", resources=asks, committers=3)
    assert (job.resources.segment.cpus, job.resources.decode.cpus) == (0.75, 0.5)
    assert job.pool_config().resources.decode.memory_mb == 512
    bundle = load_bundle(job.model)
    assert run_record(job, bundle) == run_record(SegmentConfig(archive="a", model="tpavi-light"), bundle)
