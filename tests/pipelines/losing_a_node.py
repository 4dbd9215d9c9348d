"""`python -m tests.pipelines.losing_a_node`: a chain on two nodes, one of which is killed while both are at work."""

import json
import logging
import os
import time

import ray

from avs_core.clip import Unit, VideoRef
from avs_core.pipelines.chain import outcomes, pack_blocks, watched_chain, witness
from avs_core.pipelines.cluster import connected
from avs_core.pipelines.packs import one_by_one
from avs_core.pipelines.stages import Row, new_row
from avs_core.pipelines.watch import StagePlan

ROWS = 16
WORK_S = 2.0


class Slow:
    """Says where a row was."""

    def __call__(self, row: Row) -> Row:
        """Takes its time for it."""
        time.sleep(WORK_S)
        return row | {"message": ray.get_runtime_context().get_node_id()}


def main() -> None:
    """Print the status of each row, and whether the lost node had done some."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    node = {"num_cpus": 1, "object_store_memory": 150_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    doomed = cluster.add_node(**node)
    logging.getLogger("ray").setLevel(logging.ERROR)
    rows = [new_row(Unit(VideoRef(f"/{index}.mp4", 1, "f"), 0, 5)) for index in range(ROWS)]
    found: list[Row] = []
    with connected(cluster.address), witness() as seen:
        dataset = watched_chain(pack_blocks(one_by_one(rows)), StagePlan("decode", Slow, {}), seen, 2, num_cpus=0.6)
        lost = False
        for row in outcomes(dataset):
            found.append(row)
            if not lost and doomed.node_id in {row["message"] for row in found}:
                cluster.remove_node(doomed, allow_graceful=False)
                lost = True
    cluster.shutdown()
    print(
        json.dumps(
            {"lost": lost, "units": sorted(row["unit_id"] for row in found), "ends": [row["status"] for row in found]}
        )
    )


if __name__ == "__main__":
    from tests.pipelines import losing_a_node

    losing_a_node.main()
