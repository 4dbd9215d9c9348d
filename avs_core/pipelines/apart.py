"""Workers of which no two stand on one node, so that none of them can be the other's bad neighbour."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from avs_core.pipelines.pools import Pool

LOG = logging.getLogger(__name__)

PLACES_S = 30.0
"""So long a cluster may take to give places; where others hold its nodes, half as many are asked for then."""


@dataclass(frozen=True)
class Places:
    """How many workers there are, and what Ray is told of where they stand."""

    workers: int
    asks: dict[str, Any] = field(default_factory=dict)


@contextmanager
def one_a_node(pool: Pool, most: int) -> Iterator[Places]:
    """Places for workers like those of the pool, on as many nodes as have room, at most so many.

    One place needs no promise: nothing of ours runs beside it.
    """
    group = _reserved(pool, min(most, pool.workers))
    if group is None:
        yield Places(1)
        return
    try:
        strategy = PlacementGroupSchedulingStrategy(placement_group=group)
        yield Places(group.bundle_count, {"scheduling_strategy": strategy})
    finally:
        remove_placement_group(group)


def _reserved(pool: Pool, nodes: int) -> PlacementGroup | None:
    """A place on each of so many nodes, or on fewer; None where not even two have one."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    place = {names[name]: amount for name, amount in pool.asks.items() if amount}
    while nodes > 1 and place:
        group: PlacementGroup = placement_group([place] * nodes, strategy="STRICT_SPREAD")
        with suppress(GetTimeoutError):
            ray.get(group.ready(), timeout=PLACES_S)
            return group
        remove_placement_group(group)
        LOG.info("no %d nodes have room for a worker that stands alone", nodes)
        nodes //= 2
    return None
