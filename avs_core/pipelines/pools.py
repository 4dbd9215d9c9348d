"""How many workers each stage gets on the connected Ray, and what each of them asks it for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import ray

from avs_core.errors import ConfigError
from avs_core.pipelines.pool_config import GPU_PARTS, PoolConfig, Resources

DECODERS_A_COMMITTER = 4
"""Committing mostly waits for the store: one worker keeps up with so many decoders."""

SQUEEZE, LEAST_SCALE = 0.95, 1e-4
"""What workers ask for is scaled down by steps until all of them have room."""

ALIKE = 0.6
"""A node with more than this share of the largest one's memory counts: decoders that fit there meet on no node."""

EPSILON = 1e-9


@dataclass(frozen=True)
class Pool:
    """The workers of one stage: how many, and what each of them asks Ray for. `memory` in bytes, 0 asks for none."""

    workers: int
    cpus: float
    gpus: float = 0.0
    memory: int = 0

    @property
    def asks(self) -> dict[str, float]:
        """What one worker asks for, as Ray's map operators call it."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": float(self.memory)}


@dataclass(frozen=True)
class Pools:
    """The workers of each stage, and those that do all stages of a suspect, at most as many as nodes can have one.

    Fixed sizes: a growing pool ramps one actor at a time, and a bottleneck that starts slowly starves.
    """

    decode: Pool
    segment: Pool
    commit: Pool
    alone: Pool

    @property
    def gpu_segmenters(self) -> int:
        """Segmenters with a GPU, or with a share of one."""
        return self.segment.workers if self.segment.gpus else 0


@dataclass(frozen=True)
class Room:
    """What a node has for workers. `memory` in bytes."""

    cpus: float
    gpus: float = 0.0
    memory: float = 0.0

    def holds(self, cpus: float, memory: int) -> bool:
        """Whether a worker that asks for so much has room, with nothing beside it."""
        return self.cpus + EPSILON >= cpus and self.memory >= memory

    def segmenters(self, gpus: float) -> int:
        """How many workers its GPUs hold, each of which asks for so many, or for a share of one."""
        if gpus > 1:
            return int(self.gpus // gpus)
        return int(self.gpus) * (GPU_PARTS // round(gpus * GPU_PARTS))


@dataclass(frozen=True)
class Claim:
    """What a worker of each stage asks for of one `thing`; at most `share` segmenters stand on a node."""

    thing: Literal["cpus", "memory"]
    decode: float
    segment: float
    commit: float
    share: int

    @property
    def kept(self) -> float:
        """What each node keeps for the other stages: decoders start first, and could leave them no room anywhere."""
        return self.share * self.segment + self.commit

    def decoders(self, nodes: Sequence[Room]) -> int:
        """How many decoders have room."""
        return sum(max(0, int((has - self.kept) / self.decode + EPSILON)) for has in self._of(nodes))

    def scaled(self, scale: float) -> "Claim":
        """That share of each."""
        return Claim(self.thing, self.decode * scale, self.segment * scale, self.commit * scale, self.share)

    def squeezed(self, nodes: Sequence[Room], hosts: Sequence[Room], decoders: int) -> "Claim":
        """As much of it as gives so many decoders room, and a segmenter on one of its `hosts`; all of it on nodes that
        are still to come."""
        if not nodes:
            return self
        scale, asked = 1.0 if any(self._of(nodes)) else 0.0, self
        while scale > LEAST_SCALE and not asked._fits(nodes, hosts, decoders):
            scale *= SQUEEZE
            asked = self.scaled(scale)
        return asked if scale else self.scaled(0.0)

    def _fits(self, nodes: Sequence[Room], hosts: Sequence[Room], decoders: int) -> bool:
        return self.decoders(nodes) >= decoders and any(has + EPSILON >= self.kept for has in self._of(hosts))

    def _of(self, nodes: Sequence[Room]) -> list[float]:
        return [node.cpus if self.thing == "cpus" else node.memory for node in nodes]


def rooms() -> list[Room]:
    """The nodes of the connected Ray on which workers can stand: a head without CPUs lends nobody its memory."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Room(has["CPU"], has.get("GPU", 0.0), has.get("memory", 0.0)) for has in found if has.get("CPU", 0.0)]


def size_pools(units: int, config: PoolConfig, device: str) -> Pools:
    """Pool sizes for so many units on the cluster that is connected; a number that is given wins.

    With GPUs: as many segmenters as they hold, decoders on the CPUs that are left. Without: half of the CPUs segment
    (one thread each, so that results do not depend on the machine), half decode, as far as the memory goes that each
    of them asks for. What has no room all the same is scaled down, since it would wait for ever. A cluster that may
    grow is asked for what it does not have yet, at full price, so that it brings nodes.
    """
    nodes, asks = rooms(), config.resources
    on_gpu = _on_gpu(nodes, config, device)
    hosts = [node for node in nodes if not on_gpu or node.segmenters(asks.segment.gpus)]
    segmenters = config.segmenters or _segmenters(hosts, asks, on_gpu)
    cpus, memory = _claims(asks, _ceil(segmenters, max(1, len(hosts))))
    decoders = config.decoders or _decoders(nodes, segmenters, asks)
    if not config.decoders and not config.grow and asks.decode.memory_mb:
        decoders = max(1, min(decoders, memory.decoders(nodes) or _too_small_alike(nodes)))
    decoders, segmenters = min(decoders, units), min(segmenters, units)
    committers = min(config.committers or _ceil(decoders, DECODERS_A_COMMITTER), units)
    if not config.grow:
        needed = decoders * cpus.decode + segmenters * cpus.segment + committers * cpus.commit
        cpus = cpus.scaled(min(1.0, _cpus(nodes) / needed)).squeezed(nodes, hosts, decoders)
        memory = memory.squeezed(nodes, hosts, decoders)
    if not asks.decode.memory_mb:
        memory = replace(memory, decode=0.0)
    segment = Pool(segmenters, cpus.segment, asks.segment.gpus if on_gpu else 0.0, int(memory.segment))
    together = _together(memory, hosts, config.grow)
    apart = sum(host.holds(segment.cpus, together) for host in hosts)
    return Pools(
        decode=Pool(decoders, cpus.decode, memory=int(memory.decode)),
        segment=segment,
        commit=Pool(committers, cpus.commit, memory=int(memory.commit)),
        alone=replace(segment, workers=max(1, apart), memory=together),
    )


def _on_gpu(nodes: Sequence[Room], config: PoolConfig, device: str) -> bool:
    """Whether the model runs on GPUs. Raises `ConfigError` where the cluster has too few."""
    have, each = sum(int(node.gpus) for node in nodes), config.resources.segment.gpus
    if device == "cpu" or (device == "auto" and not have):
        return False
    if config.grow:
        return True
    if not have:
        raise ConfigError("device cuda needs a GPU in the Ray cluster, and it has none: use --device cpu or auto")
    wanted, places = config.segmenters or 1, sum(node.segmenters(each) for node in nodes)
    if wanted > places:
        raise ConfigError(
            f"each segmenter takes {each:g} GPU of one node: {wanted} segmenters, but the cluster's {have} GPUs have "
            f"room for {places}: use fewer --segmenters, or a smaller --resources.segment.gpus"
        )
    return True


def _segmenters(hosts: Sequence[Room], asks: Resources, on_gpu: bool) -> int:
    if on_gpu:
        return max(1, sum(host.segmenters(asks.segment.gpus) for host in hosts))
    return max(1, int(_cpus(hosts) / 2 // max(1.0, asks.segment.cpus)))


def _decoders(nodes: Sequence[Room], segmenters: int, asks: Resources) -> int:
    """On the CPUs that segmenters leave; every worker is reckoned with one at least."""
    left = int(_cpus(nodes)) - segmenters * max(1.0, asks.segment.cpus)
    return max(1, int(left // max(1.0, asks.decode.cpus)))


def _too_small_alike(nodes: Sequence[Room]) -> int:
    """How many nodes have one decoder where none has the memory for it: so many that two never meet on the largest."""
    largest = max((node.memory for node in nodes), default=0.0)
    return sum(node.memory >= ALIKE * largest for node in nodes)


def _claims(asks: Resources, share: int) -> tuple[Claim, Claim]:
    """On CPUs and on bytes of memory. A decoder that asks for none of it takes a byte: it has room anywhere."""
    stages = asks.decode, asks.segment, asks.commit
    decode, segment, commit = (float((stage.memory_mb or 0) << 20) for stage in stages)
    cpus = Claim("cpus", asks.decode.cpus, asks.segment.cpus, asks.commit.cpus, share)
    return cpus, Claim("memory", max(1.0, decode), segment, commit, share)


def _together(memory: Claim, hosts: Sequence[Room], grow: bool) -> int:
    """What one worker with all of the stages asks for: that may be more than a node has, and nothing runs beside it."""
    wanted = memory.decode + memory.segment + memory.commit
    return int(wanted if grow or not hosts else min(wanted, max(host.memory for host in hosts)))


def _cpus(nodes: Sequence[Room]) -> float:
    """Of all nodes; a cluster that has none yet is taken for one with one."""
    return sum(node.cpus for node in nodes) or 1.0


def _ceil(amount: int, each: int) -> int:
    return -(-amount // each)
