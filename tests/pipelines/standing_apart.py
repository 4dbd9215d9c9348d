"""`python -m tests.pipelines.standing_apart`: where rows are tried alone, by more workers than nodes."""

import json
import logging
import os
import time

import ray

from avs_core.clip import Unit, VideoRef
from avs_core.pipelines.chain import alone_chain, outcomes, pack_blocks, witness
from avs_core.pipelines.cluster import connected
from avs_core.pipelines.packs import one_by_one
from avs_core.pipelines.stages import Row, new_row
from avs_core.pipelines.watch import StagePlan

NODES = 2
WORKERS = 4
TRIED = 12
WORK_S = 1.0


class Where:
    """Says which node had a row, and when."""

    def __call__(self, row: Row) -> Row:
        """Takes its time for it."""
        began = time.time()
        time.sleep(WORK_S)
        node = ray.get_runtime_context().get_node_id()
        return row | {"message": f"{node} {os.getpid()} {began} {time.time()}"}


def main() -> None:
    """Print node, process, begin and end of each row."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    node = {"num_cpus": 1, "object_store_memory": 150_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(NODES - 1):
        cluster.add_node(**node)
    logging.getLogger("ray").setLevel(logging.ERROR)
    rows = [new_row(Unit(VideoRef(f"/{index}.mp4", 1, "f"), 0, 5)) for index in range(TRIED)]
    with connected(cluster.address), witness() as seen:
        blocks = pack_blocks(one_by_one(rows))
        chain = alone_chain(blocks, [StagePlan("decode", Where, {})], seen, WORKERS, num_cpus=0.3)
        told = [row["message"].split() for row in outcomes(chain)]
    cluster.shutdown()
    print(json.dumps(told))


if __name__ == "__main__":
    from tests.pipelines import standing_apart

    standing_apart.main()
