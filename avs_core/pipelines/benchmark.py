"""Building the composite benchmark: on Ray where there is a cluster, else in processes of this machine.

A clip is a pure function of its spec, so who composes it makes no difference to a single byte.
"""

import fcntl
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util import ActorPool

from avs_core import storage
from avs_core.datasets.benchmark.assembling import begin, finish, finished, version_of
from avs_core.datasets.benchmark.manifest import ManifestRow
from avs_core.datasets.benchmark.plan import ClipSpec, Plan
from avs_core.datasets.benchmark.writing import ClipWriter
from avs_core.datasets.sources import Catalogue, Sources, default_cache, fetch_packages
from avs_core.errors import ConfigError
from avs_core.pipelines.chain import MAX_RETRIES
from avs_core.pipelines.cluster import connected

LOG = logging.getLogger(__name__)

_TOLD_EVERY = 20


@dataclass(frozen=True)
class SourceSet:
    """Where workers find the sources: the built-in catalogue's packages are fetched by each machine for itself."""

    root: Path | None = None
    catalogue: Catalogue | None = None

    def open(self) -> Sources:
        """The sources, ready to read. Raises InputError if packages can't be fetched."""
        if self.catalogue:
            return Sources(self.catalogue, self.root)
        root = self.root or default_cache()
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("w") as lock:  # the workers of a fresh machine start together
            fcntl.flock(lock, fcntl.LOCK_EX)
            return Sources(root=fetch_packages(root))


@dataclass(frozen=True)
class BuildResult:
    """What was built: `clips` of them, in `seconds` of wall time."""

    out: str
    version: str
    clips: int
    seconds: float


def build_benchmark(
    plan: Plan, out: str, sources: SourceSet, address: str | None = None, workers: int | None = None
) -> BuildResult:
    """Write the benchmark of a plan at `out`; goes on from what an earlier build left there.

    `address` names a Ray cluster (default: RAY_ADDRESS); without one `workers` processes compose (default: one a CPU).
    Raises StorageError when `out` can't be written, ConfigError when it holds another benchmark.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be >= 1, got {workers}")
    started, out = time.monotonic(), storage.normalise(out)
    catalogue = sources.catalogue or Catalogue.load()
    version = version_of(plan, catalogue)
    begin(out, plan, version)  # a place that can't be written is known before anything is fetched
    if finished(out) != version:
        address = address or os.environ.get("RAY_ADDRESS")
        sources.open()  # once, before many workers would fetch the same packages
        maker = _Maker(out, version, sources)
        composed = _on_ray(plan.clips, maker, address) if address else _locally(plan.clips, maker, workers)
        finish(out, plan, version, _told(composed, len(plan.clips), started), tuple(catalogue.classes))
    return BuildResult(out, version, len(plan.clips), round(time.monotonic() - started, 1))


@dataclass(frozen=True)
class _Maker:
    """What a worker needs to make its writer."""

    out: str
    version: str
    sources: SourceSet

    def writer(self) -> ClipWriter:
        return ClipWriter(self.out, self.version, self.sources.open())


def _told(rows: Iterator[ManifestRow], total: int, started: float) -> list[ManifestRow]:
    done: list[ManifestRow] = []
    for row in rows:
        done.append(row)
        if len(done) % _TOLD_EVERY == 0 or len(done) == total:
            LOG.info("%d of %d clips, %.0f s", len(done), total, time.monotonic() - started)
    return done


class _RemoteWriter:
    """The writer of one Ray actor. Made by the first clip: what fails in an actor's start loses its class."""

    def __init__(self, maker: _Maker) -> None:
        self._maker = maker
        self._writer: ClipWriter | None = None

    def write(self, spec: ClipSpec) -> ManifestRow:
        self._writer = self._writer or self._maker.writer()
        return self._writer.write(spec)


def _on_ray(specs: Sequence[ClipSpec], maker: _Maker, address: str) -> Iterator[ManifestRow]:
    """One clip a call, on an actor a CPU. A worker's error is raised as itself."""
    with connected(address):
        count = min(len(specs), max(1, int(ray.available_resources().get("CPU", 1))))
        remote = ray.remote(num_cpus=1, max_restarts=MAX_RETRIES, max_task_retries=MAX_RETRIES)(_RemoteWriter)
        pool: Any = ActorPool([remote.remote(maker) for _ in range(count)])
        yield from pool.map_unordered(lambda actor, spec: actor.write.remote(spec), specs)


def _locally(specs: Sequence[ClipSpec], maker: _Maker, workers: int | None) -> Iterator[ManifestRow]:
    """In `workers` processes; with one, in this one."""
    count = min(len(specs), workers or len(os.sched_getaffinity(0)))
    if count == 1:
        writer = maker.writer()
        yield from map(writer.write, specs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _start, (maker,)) as pool:
        tasks = [pool.submit(_write, spec) for spec in specs]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BrokenProcessPool as error:
            raise ConfigError(
                f"{count} composing processes must fit this machine, and one of them died (out of memory?): "
                f"run the same command with fewer workers, it goes on from there"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_writer: ClipWriter | None = None
"""Of a local process, made once when it starts."""


def _start(maker: _Maker) -> None:
    global _writer
    _writer = maker.writer()


def _write(spec: ClipSpec) -> ManifestRow:
    assert _writer is not None
    return _writer.write(spec)
