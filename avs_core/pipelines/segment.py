"""The main job, wired on Ray Data: plan → probe → decode → segment → commit.

Everything that computes lives in `stages`; here the stages are chained and their outcomes are told to the
terminal and the tracker. The driver holds no pixels and no masks: rows of a few numbers come back.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue
from ray.data import ActorPoolStrategy, Dataset

from avs_core import storage
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.ledger import Ledger, load_ledger
from avs_core.archive.schema import RunRecord
from avs_core.archive.staging import VideoWriter
from avs_core.clip import Unit, VideoRef
from avs_core.errors import TooManyDeadLetters
from avs_core.models.bundle import Bundle
from avs_core.pipelines import wire
from avs_core.pipelines.chain import chain, one_row_blocks, outcomes
from avs_core.pipelines.cluster import Pools, connected, size_pools
from avs_core.pipelines.metrics import JobMetrics
from avs_core.pipelines.model_stage import SegmentUnit
from avs_core.pipelines.plan import make_plan, missing_units, unprobed
from avs_core.pipelines.progress import Progress
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import (
    DEAD,
    OK,
    WHOLE,
    CommitUnit,
    DecodeUnit,
    ProbeVideo,
    Row,
    new_row,
    with_retries,
)
from avs_core.tracking import Tracker

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmentResult:
    """What one job did. `frames` and `instances` count what it wrote; `dead` counts videos of its inputs."""

    archive: str
    run_key: str
    videos: int
    segmented: int
    frames: int
    instances: int
    dead: int
    failed: int
    video_seconds: float
    seconds: float


@dataclass
class Totals:
    """What has come back from the workers so far."""

    rows: int = 0
    frames: int = 0
    instances: int = 0
    failed: int = 0
    video_seconds: float = 0.0
    videos: set[str] = field(default_factory=set)
    dead: dict[str, str] = field(default_factory=dict)
    stage_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("decode_s", "segment_s", "commit_s"), 0.0))

    def add(self, row: Row) -> Unit:
        """Count one outcome; returns its unit."""
        unit = wire.unit_from_text(row["unit"])
        self.rows += 1
        self.frames += row["n_frames"]
        self.instances += row["n_instances"]
        for name in self.stage_s:
            self.stage_s[name] += row[name]
        if row["status"] == OK:
            self.video_seconds += unit.stop_s - unit.start_s
            self.videos.add(unit.video.uri)
        elif row["status"] == WHOLE:
            self.videos.add(unit.video.uri)
        elif row["status"] == DEAD:
            self.dead[unit.video.uri] = row["error_class"]
        else:
            self.failed += 1
            LOG.warning("not done, the next run takes it up again: %s: %s", unit.video.uri, row["message"])
        return unit

    def metrics(self) -> dict[str, float]:
        """The same as flat numbers."""
        return {
            "units": self.rows,
            "frames": self.frames,
            "instances": self.instances,
            "dead": len(self.dead),
            "failed": self.failed,
            "video_seconds": self.video_seconds,
            **{f"stage.{name}": value for name, value in self.stage_s.items()},
        }


def run_record(config: SegmentConfig, bundle: Bundle) -> RunRecord:
    """Everything that decides what the masks are: it names the run.

    Raises `ConfigError` when units would split the bundle's windows.
    """
    made = bundle.config
    config.check_windows(made.name, made.window_s)
    # What the weights do not tell: how a net names, weighs and composes its objects; where Mask R-CNN looks, and how
    # many things it keeps.
    composed: dict[str, JsonValue] = {}
    if made.instance_aware is not None:
        composed = {
            "net": made.instance_aware.model_dump(mode="json"),
            "calibration": None if made.calibration is None else made.calibration.model_dump(mode="json"),
        }
    if made.two_stage is not None:
        told = made.two_stage.detector.model_dump(mode="json", include={"anchors", "proposals", "objects"})
        composed = {"detector": told}
    return RunRecord(
        model=made.name,
        weights_sha256=bundle.weights_sha256,
        preprocessing={
            "size": made.size,
            "mean": list(made.mean),
            "std": list(made.std),
            "alignment": made.alignment,
            "window_s": made.window_s,
            "rate": config.rate,
            "mask_size": list(config.mask_size) if config.mask_size else None,
            "audio": config.audio,
            "decoder": config.decoder,
            **composed,
        },
        thresholds={"mask": config.threshold or made.threshold},
        categories=() if made.instance_aware is None else bundle.categories,
        numerics={"dtype": "float32"},
    )


def frame_size(record: RunRecord) -> int:
    """Side of the square frames that the run's model sees, pixels."""
    size = record.preprocessing["size"]
    assert isinstance(size, int)
    return size


def segment(
    videos: Sequence[VideoRef], config: SegmentConfig, record: RunRecord, tracker: Tracker, progress: Progress
) -> SegmentResult:
    """Segment what the archive does not hold yet of the videos.

    Safe to kill at any moment and to run again; two at once do not harm each other. Raises `UsageError` for
    settings that can't be, `CommitConflict` and `StorageError` when the archive can't be written.
    """
    started = time.monotonic()
    writer = ArchiveWriter(config.archive, record)
    with_retries(writer.open_run)
    with_retries(writer.check_exclusive)
    plan = make_plan(videos, ledger := load_ledger(config.archive, writer.run_key))
    VideoWriter(writer).sweep(ledger)
    tracker.log_metrics({"input.videos": len(videos), "input.settled": plan.settled}, step=0)
    totals = Totals()
    if plan.pending:
        with connected(config.address):
            rows = _probe(plan.pending, ledger, config, record)
            _run(rows, config, record, totals, tracker, progress)
    result = _result(config, writer.run_key, videos, totals, time.monotonic() - started)
    tracker.log_metrics({**totals.metrics(), "seconds": result.seconds, "dead_videos": result.dead}, step=totals.rows)
    return result


def _probe(videos: Sequence[VideoRef], ledger: Ledger, config: SegmentConfig, record: RunRecord) -> list[Row]:
    """A row for every unit that is missing, and one for every video that can't be probed."""
    pools = size_pools(len(videos), "cpu", config.decoders, None, config.grow)
    probe = chain(
        one_row_blocks([new_row(unprobed(video)) for video in videos]),
        ProbeVideo,
        {
            "config": config.decode_config(frame_size(record)),
            "limits": config.decode_limits(),
            "unit_s": config.unit_length_s,
        },
        ActorPoolStrategy(size=pools.decoders),
        num_cpus=pools.cpus("decode"),
    )
    rows: list[Row] = []
    for row in outcomes(probe):
        units = list(map(wire.unit_from_text, row.pop("units").splitlines()))
        if row["status"] == OK:
            rows.extend(map(new_row, missing_units(units, ledger)) or [new_row(units[-1]) | {"status": WHOLE}])
        else:
            rows.append(row)
    return sorted(rows, key=lambda row: str(row["unit"]))


def _run(
    rows: list[Row], config: SegmentConfig, record: RunRecord, totals: Totals, tracker: Tracker, progress: Progress
) -> None:
    """Bring every row to its end, and tell of each as it comes."""
    units = [wire.unit_from_text(row["unit"]) for row in rows if row["status"] == OK]
    pools = size_pools(len(rows), config.device, config.decoders, config.segmenters, config.grow)
    gpus = pools.segmenters if pools.gpus_per_segmenter else 0
    with (
        JobMetrics(len(rows), gpus) as metrics,
        progress.over(
            videos=len({row["unit_id"][:16] for row in rows}), seconds=sum(u.stop_s - u.start_s for u in units)
        ),
    ):
        for row in outcomes(_pipeline(rows, pools, config, record)):
            unit = totals.add(row)
            metrics.add(row, unit)
            progress.update(videos=len(totals.videos), seconds=totals.video_seconds, dead=len(totals.dead))
            tracker.log_metrics({**totals.metrics(), **progress.snapshot().metrics()}, step=totals.rows)
            LOG.debug("%s %s", row["status"], unit.unit_id)


def _pipeline(rows: list[Row], pools: Pools, config: SegmentConfig, record: RunRecord) -> Dataset:
    decode = {"config": config.decode_config(frame_size(record)), "limits": config.decode_limits()}
    model = {
        "model": config.model,
        "device": "cuda" if pools.gpus_per_segmenter else "cpu",
        "threshold": config.threshold,
    }
    commit = {"archive": config.archive, "record": record}
    dataset = one_row_blocks(rows)
    dataset = chain(dataset, DecodeUnit, decode, ActorPoolStrategy(size=pools.decoders), num_cpus=pools.cpus("decode"))
    dataset = chain(
        dataset,
        SegmentUnit,
        {**model, "mask_size": config.mask_size},
        ActorPoolStrategy(size=pools.segmenters),
        num_cpus=pools.cpus("segment"),
        num_gpus=pools.gpus_per_segmenter,
    )
    return chain(dataset, CommitUnit, commit, ActorPoolStrategy(size=1), num_cpus=pools.cpus("commit"))


def _result(
    config: SegmentConfig, run_key: str, videos: Sequence[VideoRef], totals: Totals, seconds: float
) -> SegmentResult:
    dead_keys = {unit_id.split("-")[0] for unit_id in load_ledger(config.archive, run_key).dead}
    return SegmentResult(
        archive=storage.normalise(config.archive),
        run_key=run_key,
        videos=len(videos),
        segmented=len(totals.videos),
        frames=totals.frames,
        instances=totals.instances,
        dead=sum(video.video_key in dead_keys for video in videos),
        failed=totals.failed,
        video_seconds=totals.video_seconds,
        seconds=round(seconds, 3),
    )


def check_dead_share(result: SegmentResult, limit: float) -> None:
    """Raises `TooManyDeadLetters` when more than `limit` of the job's videos are dead."""
    share = result.dead / result.videos
    if share > limit:
        raise TooManyDeadLetters(
            f"at most {limit:.0%} of a job's videos may be dead, {result.dead} of {result.videos} are: "
            f"`avs dead {result.archive}` says why"
        )
