"""From what was seen to what is wrong and what to change: one check a line. No Ray, no clock, no disk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from avs_core.media.config import DecodeLimits
from avs_core.pipelines.node_facts import NodeFacts
from avs_core.storage.examine import StoreFacts

State = Literal["ok", "warning", "problem"]

GB = 1e9
FULL_SHARE = 0.05
"""Ray spills nothing to a disk that is fuller than 95 %."""
OBJECT_STORE_PER_CPU = 100e6
"""Bytes: two units of 300 s of decoded frames at 224×224, which is 45 MB each."""
LEAST_MEMORY = float(DecodeLimits().memory_mb << 20)
"""Bytes: what one decoding process may take by default."""
SKEW_WARNING_S, SKEW_PROBLEM_S = 2.0, 30.0
SLOW_STORE_S = 0.5


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, `where`: what was found, and what to change unless it is ok."""

    name: str
    where: str
    state: State
    found: str
    advice: str = ""


@dataclass(frozen=True)
class RayNode:
    """A machine as Ray knows it. `object_store` and `memory`, which Ray lends to workers, in bytes."""

    address: str
    cpus: float
    gpus: float
    object_store: float
    memory: float


@dataclass(frozen=True)
class Clock:
    """How far a machine's clock is ahead of the driver's, and how far off this may be itself, s."""

    ahead_s: float
    within_s: float


def judge(
    name: str, where: str, found: str, *, problem: bool = False, warning: bool = False, advice: str = ""
) -> Check:
    """A check whose state is the worst that holds; the advice is dropped where nothing is wrong."""
    state: State = "problem" if problem else "warning" if warning else "ok"
    return Check(name, where, state, found, "" if state == "ok" else advice)


def same_versions(of: Mapping[str, Mapping[str, str]]) -> Iterator[Check]:
    """`of` holds the versions of each machine. A check for each library that any of them names."""
    for name in sorted({name for versions in of.values() for name in versions}):
        seen: dict[str, list[str]] = {}
        for machine, versions in of.items():
            seen.setdefault(versions.get(name, "missing"), []).append(machine)
        if len(seen) == 1:
            found = f"{next(iter(seen))} everywhere"
        else:
            found = "; ".join(f"{version} on {', '.join(machines)}" for version, machines in sorted(seen.items()))
        missing = name != "code" and "missing" in seen
        yield judge(
            f"version of {name}",
            "cluster",
            found,
            problem=len(seen) > 1 or missing,
            advice="install the same image, or the same constraints.txt, on every node and start Ray there again",
        )


def node_checks(ray: RayNode, facts: NodeFacts, clock: Clock) -> Iterator[Check]:
    """Everything about one machine alone."""
    yield _gpus(ray, facts)
    yield from _decoders(ray.address, facts)
    yield from _room(ray, facts)
    yield _clock(ray.address, clock)


def _gpus(ray: RayNode, facts: NodeFacts) -> Check:
    torch = len(facts.gpus)
    found = f"{ray.gpus:g} for Ray, {torch} for torch" + (f" ({', '.join(facts.gpus)})" if facts.gpus else "")
    return judge(
        "GPUs",
        ray.address,
        f"{found}: {facts.gpu_fault}" if facts.gpu_fault else found,
        problem=ray.gpus > torch or bool(facts.gpu_fault),
        warning=ray.gpus < torch,
        advice="start Ray with the --num-gpus that torch can use; where torch sees fewer than are there, the driver "
        "is older than torch's CUDA, or the container was started without GPUs",
    )


def _decoders(where: str, facts: NodeFacts) -> Iterator[Check]:
    for backend, fault in facts.decoders.items():
        yield judge(
            f"decoder {backend}",
            where,
            fault or "decodes a clip",
            problem=bool(fault) and backend == "pyav",
            warning=bool(fault),
            advice="install the package's requirements on this node"
            + ("" if backend == "pyav" else ", or run with --decoder pyav"),
        )


def _room(ray: RayNode, facts: NodeFacts) -> Iterator[Check]:
    """Disk, memory and object store."""
    full = facts.disk_free < FULL_SHARE * facts.disk_total
    yield judge(
        "disk to spill to",
        ray.address,
        f"{facts.disk_free / GB:.1f} of {facts.disk_total / GB:.1f} GB free",
        problem=full,
        warning=facts.disk_free < ray.object_store,
        advice="make room, or start Ray with --temp-dir on a larger disk: it should take the object store once over",
    )
    yield judge(
        "memory",
        ray.address,
        f"{facts.memory_available / GB:.1f} GB available, Ray lends {ray.memory / GB:.1f} GB to workers",
        warning=bool(ray.cpus) and min(facts.memory_available, ray.memory) < LEAST_MEMORY,
        advice=f"a decoding process may take {LEAST_MEMORY / GB:.1f} GB, and workers get about 70 % of a node: use "
        "larger nodes, or lower --decode-memory-mb",
    )
    wanted = OBJECT_STORE_PER_CPU * ray.cpus
    yield judge(
        "object store",
        ray.address,
        f"{ray.object_store / GB:.2f} GB for {ray.cpus:g} CPUs, /dev/shm has {facts.shared_memory / GB:.2f} GB",
        warning=ray.object_store < wanted or facts.shared_memory < ray.object_store,
        advice=f"start Ray with --object-store-memory of {wanted / GB:.1f} GB or more; a container needs as much "
        "--shm-size, or the store lies on disk",
    )


def _clock(where: str, clock: Clock) -> Check:
    off = max(0.0, abs(clock.ahead_s) - clock.within_s)
    return judge(
        "clock",
        where,
        f"{clock.ahead_s:+.3f} s against the driver, ± {clock.within_s:.3f} s",
        problem=off > SKEW_PROBLEM_S,
        warning=off > SKEW_WARNING_S,
        advice="run a time service (chrony) on every node: leases and queue waits compare clocks, S3 refuses old ones",
    )


def store_checks(where: str, facts: StoreFacts) -> Sequence[Check]:
    """What a store must do, as it was seen from one machine."""
    return (
        judge(
            "store: read and list",
            where,
            "what was written is read and listed" if facts.listed else "what was written is not all listed at once",
            problem=not facts.listed,
            advice="use a store that lists what was written at once, as S3 does",
        ),
        judge(
            "store: missing keys",
            where,
            facts.absent or "what is not there is said not to be there",
            problem=bool(facts.absent),
            advice="every commit asks for keys that are not there, and S3 says so only to who may list the bucket: "
            "allow s3:ListBucket under the archive's prefix",
        ),
        judge(
            "store: conditional writes",
            where,
            f"a taken key is {'kept' if facts.exclusive else 'overwritten'}; of two writers at once "
            f"{'one wins' if facts.one_winner else 'not exactly one wins'}",
            problem=not (facts.exclusive and facts.one_winner),
            advice="use a store that honours If-None-Match: `avs segment` refuses this one",
        ),
        judge(
            "store: latency",
            where,
            f"{facts.latency_s * 1000:.0f} ms to write and read a few bytes",
            warning=facts.latency_s > SLOW_STORE_S,
            advice="keep the archive in the region of the cluster",
        ),
    )
