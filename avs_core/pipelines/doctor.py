"""`avs doctor`: look at the cluster and the store from every node, and say what to change."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from avs_core import storage
from avs_core.errors import NotFound, StorageError
from avs_core.pipelines.cluster import connected
from avs_core.pipelines.node_facts import NodeFacts, look, now, versions
from avs_core.pipelines.verdicts import Check, Clock, RayNode, judge, node_checks, same_versions, store_checks
from avs_core.storage.examine import StoreFacts, examine

LOG = logging.getLogger(__name__)

DRIVER = "driver"
ANSWER_S = 300
"""A node that has not answered by then will not: its worker starts, imports torch and decodes within this."""
PINGS = 5
TRIALS = "_doctor"
"""Folder of an archive for what is tried there; empty afterwards."""


@ray.remote(num_cpus=0, max_restarts=0)
class Examiner:
    """A process on one node."""

    def look(self, spill_folder: str) -> NodeFacts:
        return look(spill_folder)

    def now(self) -> float:
        return now()

    def examine(self, folder: str) -> StoreFacts:
        return examine(folder)

    def read(self, uri: str) -> bytes | None:
        try:
            return storage.read_bytes(uri)
        except NotFound:
            return None


def examine_cluster(address: str | None, archive: str | None) -> list[Check]:
    """Every check, on the Ray at `address` (RAY_ADDRESS, one of our own) and on the archive's store, if one is named.

    A node that does not answer and a store that fails are findings. Raises `UsageError` for an address or an archive
    that can't be, and `ClusterUnavailable` for an address that does not answer.
    """
    archive = storage.normalise(archive) if archive else None
    with connected(address):
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        # All at once: a cluster of a hundred nodes should take as long as one.
        examiners = {node_id: _on(node_id) for node_id in alive}
        looking = {node_id: examiners[node_id].look.remote(_spill_folder(node)) for node_id, node in alive.items()}
        seen = {DRIVER: versions()}
        checks: list[Check] = []
        ray.wait([*looking.values()], num_returns=len(looking), timeout=ANSWER_S)  # for all that are silent at once
        for node_id, node in alive.items():
            of_ray = _as_ray_knows(node, node_id)
            try:
                facts = ray.get(looking[node_id], timeout=1)
                checks += node_checks(of_ray, facts, _clock(examiners[node_id]))
            except RayError as error:
                checks.append(_silent(of_ray.address, error))
                continue
            seen[of_ray.address] = facts.versions
            checks += _store_from(of_ray.address, examiners[node_id], archive, node_id) if archive else ()
        return [*same_versions(seen), *checks]


def _on(node_id: str) -> Any:
    pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return Examiner.options(scheduling_strategy=pinned).remote()  # type: ignore[attr-defined]  # made by ray.remote


def _spill_folder(node: dict[str, Any]) -> str:
    """Ray spills to its session's folder, which holds the object store's socket."""
    return str(Path(node["ObjectStoreSocketName"]).parent)


def _as_ray_knows(node: dict[str, Any], node_id: str) -> RayNode:
    has = node["Resources"]
    address = f"{node['NodeManagerAddress']} ({node_id[-6:]})"  # several nodes may share a machine
    return RayNode(
        address,
        cpus=has.get("CPU", 0.0),
        gpus=has.get("GPU", 0.0),
        object_store=has.get("object_store_memory", 0.0),
        memory=has.get("memory", 0.0),
    )


def _clock(examiner: Any) -> Clock:
    """From the quickest of a few questions: the answer lies between sending and receiving."""
    best = Clock(0.0, float("inf"))
    for _ in range(PINGS):
        sent = time.time()
        there = ray.get(examiner.now.remote(), timeout=ANSWER_S)
        received = time.time()
        if (received - sent) / 2 < best.within_s:
            best = Clock(there - (sent + received) / 2, (received - sent) / 2)
    return best


def _silent(where: str, error: RayError) -> Check:
    return judge(
        "node",
        where,
        f"a process of ours can't work there: {_last_line(error)}",
        problem=True,
        advice="install this package on the node; the logs of the Ray session there say more",
    )


def _store_from(where: str, examiner: Any, archive: str, node_id: str) -> Iterator[Check]:
    """The store as one node sees it; a local folder must also be the driver's."""
    folder = storage.join(archive, TRIALS, node_id)
    try:
        if not archive.startswith("s3://"):
            yield _shared(where, examiner, storage.join(folder, "shared"))
        yield from store_checks(where, ray.get(examiner.examine.remote(folder), timeout=ANSWER_S))
    except (StorageError, RayError) as error:
        yield judge(
            "store",
            where,
            _last_line(error),
            problem=True,
            advice="the store must be reachable, and writable, from every node: check endpoint, credentials or role, "
            "and the rights of the folder",
        )


def _shared(where: str, examiner: Any, uri: str) -> Check:
    storage.write_bytes(uri, b"of the driver")
    try:
        there = ray.get(examiner.read.remote(uri), timeout=ANSWER_S) == b"of the driver"
    finally:
        storage.delete(uri)
    return judge(
        "store: the same folder",
        where,
        "holds what the driver wrote" if there else "does not hold what the driver wrote",
        problem=not there,
        advice="a folder must be one file system that every node mounts at this path: mount it, or use s3://",
    )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
