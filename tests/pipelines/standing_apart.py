"""`python -m tests.pipelines.standing_apart`: who runs where, of rows that are tried alone on a cluster of three nodes.

First all nodes are free; then one of them is held by somebody else.
"""

import json
import logging
import os
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from avs_core.clip import Unit, VideoRef
from avs_core.pipelines import apart
from avs_core.pipelines.apart import one_a_node
from avs_core.pipelines.chain import alone_chain, outcomes, pack_blocks, witness
from avs_core.pipelines.cluster import connected
from avs_core.pipelines.packs import one_by_one
from avs_core.pipelines.pools import Pool
from avs_core.pipelines.stages import Row, new_row
from avs_core.pipelines.watch import StagePlan

NODES = 3
TRIED = 9
WORK_S = 1.0


class Where:
    """Says which worker of which node had a row."""

    def __call__(self, row: Row) -> Row:
        """Takes its time for it."""
        time.sleep(WORK_S)
        return row | {"message": f"{ray.get_runtime_context().get_node_id()} {os.getpid()}"}


class Holder:
    """Somebody else's."""

    def ready(self) -> bool:
        """Holds the node from then on."""
        return True


def tried() -> dict[str, Any]:
    """How many workers there were, and which node and process had each row."""
    rows = [new_row(Unit(VideoRef(f"/{index}.mp4", 1, "f"), 0, 5)) for index in range(TRIED)]
    pool = Pool(NODES, cpus=0.4)
    with witness() as seen, one_a_node(pool, len(rows)) as places:
        blocks = pack_blocks(one_by_one(rows))
        plans = [StagePlan("decode", Where, {})]
        found = outcomes(alone_chain(blocks, plans, seen, places.workers, **pool.asks, **places.asks))
        return {"workers": places.workers, "at": [row["message"].split() for row in found]}


def main() -> None:
    """Print where the rows were."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    apart.PLACES_S = 10.0
    node = {"num_cpus": 1, "object_store_memory": 150_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    *_, held = (cluster.add_node(**node) for _ in range(NODES - 1))
    logging.getLogger("ray").setLevel(logging.ERROR)
    with connected(cluster.address):
        free = tried()
        strategy = NodeAffinitySchedulingStrategy(held.node_id, soft=False)
        holder: Any = ray.remote(Holder).options(num_cpus=1, scheduling_strategy=strategy).remote()
        ray.get(holder.ready.remote())
        told = {"free": free, "held": tried()}
    cluster.shutdown()
    print(json.dumps(told))


if __name__ == "__main__":
    from tests.pipelines import standing_apart

    standing_apart.main()
