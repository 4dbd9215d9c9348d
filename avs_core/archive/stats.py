"""What jobs took: the measurements that a plan's estimate is made of.

<archive>/_stats/run=<run_key>/<start, UTC>-<8 hex digits>.json     one a job that did something
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from avs_core import storage
from avs_core.archive.layout import RUNS, STATS, SUFFIX, StoredRecord, parse, unit_ids
from avs_core.archive.schema import canonical_json
from avs_core.archive.state import READERS

NEWEST = 50
"""Jobs of a run that are looked at; older ones say little about today's cluster."""


class JobStats(StoredRecord):
    """One job.

    `bytes` are of the source files, as much of each as was segmented; seconds of stages are summed over workers,
    `seconds` is on the clock at the wall. `gpus` are those that segmenters held; the cluster's are means over the job,
    None in records of jobs that did not look.
    """

    started: datetime
    seconds: float
    videos: int
    bytes: int
    video_seconds: float
    instances: int
    decode_s: float
    segment_s: float
    commit_s: float
    decoders: int
    segmenters: int
    gpus: int
    cluster_cpus: float | None = None
    cluster_gpus: float | None = None

    @property
    def busy_gpu_s(self) -> float:
        """Seconds that segmenters with a GPU worked."""
        return self.segment_s if self.gpus else 0.0

    @property
    def busy_cpu_s(self) -> float:
        """Seconds that all other workers worked, one CPU each."""
        return self.decode_s + self.segment_s + self.commit_s - self.busy_gpu_s

    @property
    def paid_cpu_s(self) -> float:
        """Seconds of CPUs that were there for the job, at work or not; of an older record, those at work."""
        return self.busy_cpu_s if self.cluster_cpus is None else self.cluster_cpus * self.seconds

    @property
    def paid_gpu_s(self) -> float:
        """Seconds of GPUs that were there for the job; of an older record, those that it held."""
        return (self.gpus if self.cluster_gpus is None else self.cluster_gpus) * self.seconds


@dataclass(frozen=True)
class Rates:
    """What a second of video costs, and how much video a byte holds; summed over jobs.

    cpu_s, gpu_s            that were paid for: start-up, probing, idle and all
    busy_cpu_s, busy_gpu_s  of these, what stages were at work
    """

    video_s_per_byte: float
    wall_s: float
    cpu_s: float
    gpu_s: float
    busy_cpu_s: float
    busy_gpu_s: float


def stats_folder(run_key: str) -> str:
    """Where the jobs of a run say what they took."""
    return f"{STATS}/run={run_key}"


def record_stats(archive: str, run_key: str, stats: JobStats) -> None:
    """Put the measurements of one job there."""
    started = stats.started.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{started}-{uuid.uuid4().hex[:8]}{SUFFIX}"
    uri = storage.join(storage.normalise(archive), stats_folder(run_key), name)
    storage.write_bytes(uri, canonical_json(stats.model_dump(mode="json")))


def read_stats(archive: str, run_key: str) -> list[JobStats]:
    """The newest jobs of a run, oldest first."""
    folder = storage.join(storage.normalise(archive), stats_folder(run_key))
    uris = sorted(found.uri for found in storage.list_files(folder) if found.uri.endswith(SUFFIX))[-NEWEST:]
    return list(storage.in_threads(lambda uri: parse(JobStats, storage.read_bytes(uri), uri), uris, READERS))


def rates(archive: str, run_key: str) -> Rates | None:
    """What this run measured; where it measured nothing yet, all others. None in an archive without measurements."""
    archive = storage.normalise(archive)
    jobs = read_stats(archive, run_key)
    if not jobs:
        jobs = [job for key in sorted(unit_ids(archive, RUNS)) for job in read_stats(archive, key)]
    return _rates([job for job in jobs if job.video_seconds > 0])


def _rates(jobs: Iterable[JobStats]) -> Rates | None:
    jobs = list(jobs)
    if not jobs:
        return None
    video_s = sum(job.video_seconds for job in jobs)
    return Rates(
        video_s_per_byte=video_s / max(1, sum(job.bytes for job in jobs)),
        wall_s=sum(job.seconds for job in jobs) / video_s,
        cpu_s=sum(job.paid_cpu_s for job in jobs) / video_s,
        gpu_s=sum(job.paid_gpu_s for job in jobs) / video_s,
        busy_cpu_s=sum(job.busy_cpu_s for job in jobs) / video_s,
        busy_gpu_s=sum(job.busy_gpu_s for job in jobs) / video_s,
    )
