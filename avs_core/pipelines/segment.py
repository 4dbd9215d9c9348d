"""The main job, wired on Ray Data: plan → probe → decode → segment → commit.

Everything that computes lives in `stages`; here the stages are chained and their outcomes are told to the
terminal and the tracker. The driver holds no pixels and no masks: rows of a few numbers come back.
"""

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from avs_core import storage
from avs_core.archive.attempts import Attempts
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.dead import forget_replaced
from avs_core.archive.layout import TouchRecord
from avs_core.archive.ledger import Ledger, dead_keys, load_ledger
from avs_core.archive.schema import RunRecord
from avs_core.archive.staging import VideoWriter, as_begun
from avs_core.archive.stats import JobStats, record_stats
from avs_core.archive.touched import earlier_versions, record_touch
from avs_core.clip import VideoRef
from avs_core.errors import NotApplied, OutcomeUnknown
from avs_core.media.sampling import sound_margins
from avs_core.media.soundtrack import BLOCK_S
from avs_core.media.versions import decoder_versions
from avs_core.models.audio_encoders import find_audio_encoder
from avs_core.models.bundle import Bundle
from avs_core.pipelines import wire
from avs_core.pipelines.brake import Brake, stop_sign
from avs_core.pipelines.cluster import connected, warn_of_no_cpus
from avs_core.pipelines.cluster_meter import Nodes, metered
from avs_core.pipelines.cluster_watch import Patience, patient
from avs_core.pipelines.flows import ProbeFlows, UnitFlows
from avs_core.pipelines.metrics import JobMetrics
from avs_core.pipelines.packs import seconds_of
from avs_core.pipelines.plan import Plan, State, make_plan
from avs_core.pipelines.pools import Pools, size_pools
from avs_core.pipelines.progress import Progress
from avs_core.pipelines.rounds import Rounds, rows_of
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import (
    DEAD,
    OK,
    TOUCHED,
    Row,
    Stop,
    row_to_probe,
    with_retries,
)
from avs_core.pipelines.suspects import Aside, Rows, note
from avs_core.pipelines.totals import Totals
from avs_core.tracking import Tracker

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmentResult:
    """What one job did. `frames` and `instances` count what it wrote; `dead` counts videos of its inputs.

    `failed` units are to be run again; of `left` videos nothing was begun, because the job was `stopped` (why, or "").
    With `pending` of the videos there was work when it began.
    """

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
    touched: int = 0
    left: int = 0
    stopped: str = ""
    pending: int = 0


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
    # How far the ear hears beyond its seconds: only where that takes more sound than a unit's own seconds, and above
    # rate 1 the second before. Archives made with so much are right as they are, and their runs keep their names.
    reach = find_audio_encoder(made.audio_encoder).front_end.reach
    if sound_margins(config.rate, reach) != (int(config.rate > 1), 0):
        composed["reach"] = list(reach)
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
            "sound_block_s": BLOCK_S,
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
    videos: Sequence[VideoRef],
    config: SegmentConfig,
    record: RunRecord,
    tracker: Tracker,
    progress: Progress,
    brake: Brake | None = None,
    registry: str | None = None,
) -> SegmentResult:
    """Segment what the archive does not hold yet of the videos, until all is done or the brake is pressed.

    Workers fetch a `models:/…` from `registry`, else from where their environment says.
    Safe to kill at any moment and to run again; two at once do not harm each other. Raises `UsageError` for
    settings that can't be, `CommitConflict` and `StorageError` when the archive can't be written, `ClusterShrank`.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    brake = brake or Brake()
    writer = ArchiveWriter(config.archive, record)
    with_retries(writer.open_run)
    with_retries(writer.check_exclusive)
    ledger = load_ledger(config.archive, writer.run_key, decoder_versions())
    plan = make_plan(videos, config.archive, writer.run_key, ledger)
    VideoWriter(writer).sweep(ledger)
    tracker.log_metrics({"input.videos": len(videos), "input.settled": plan.settled}, step=0)
    totals = Totals(left={video.uri for video in plan.pending} if brake.reason else set())
    if plan.pending and not brake.reason:
        with (
            connected(config.address),
            metered(clock) as meter,
            patient(config.lost_node_s) as patience,
            stop_sign(brake) as stop,
        ):
            warn_of_no_cpus(config.grow)
            watch = _Watch(brake, stop, patience, totals, tracker, progress)
            pools = _Job(config, writer, ledger, plan, watch, registry).run()
        if totals.video_seconds:
            now = time.monotonic()
            stats = _stats(started, now - clock, totals, pools, meter.mean(now))
            with_retries(lambda: record_stats(config.archive, writer.run_key, stats))
    if ledger.doubtful or ledger.overruled or totals.videos:
        forget_replaced(config.archive, writer.run_key, ledger.doubtful)
    result = _result(config, writer.run_key, plan, totals, time.monotonic() - clock, brake)
    tracker.log_metrics({**totals.metrics(), "seconds": result.seconds, "dead_videos": result.dead}, step=totals.rows)
    return result


@dataclass(frozen=True)
class _Watch:
    """What ends a job early, and who is told of it."""

    brake: Brake
    stop: Stop
    patience: Patience
    totals: Totals
    tracker: Tracker
    progress: Progress


class _Job:
    """One job on a connected Ray: its pending videos, a round of them at a time, and then the suspects."""

    def __init__(
        self,
        config: SegmentConfig,
        writer: ArchiveWriter,
        ledger: Ledger,
        plan: Plan,
        watch: _Watch,
        registry: str | None = None,
    ) -> None:
        self.registry = registry
        self.config, self.writer, self.ledger, self.plan = config, writer, ledger, plan
        self.brake, self.stop, self.patience = watch.brake, watch.stop, watch.patience
        self.totals, self.tracker, self.progress = watch.totals, watch.tracker, watch.progress
        self.attempts = Attempts(writer.uri, writer.run_key)
        self.rounds = Rounds(plan.pending, config.unit_length_s)
        self.probes, self.units = Aside(self.attempts), Aside(self.attempts)

    def run(self) -> Pools:
        """Bring the pending videos to their end; returns the largest pools that a round had.

        Suspects come after everybody else, whether they were suspected while probed or later.
        """
        used = [self._pools(1)]
        with self.progress.over(videos=len(self.plan.pending), seconds=0), JobMetrics() as metrics:
            for rows in self._probed():
                used.extend(self._work(rows, metrics))
            if self.units.waiting and not self.brake.reason:
                pools = self._pools(len(self.units.waiting))
                self._finish(self.units.alone(self._flows(pools).alone), metrics)
        self._leave([*self.probes.waiting, *self.units.waiting])
        self.totals.left.update(video.uri for video in self.rounds.rest)
        return max(used, key=lambda pools: pools.decode.workers + pools.segment.workers)

    def _probed(self) -> Iterator[list[Row]]:
        """The rows of one round after the other, and last of the videos that were suspected while they were probed."""
        archive, changed = self.writer.uri, self.plan.of(State.CHANGED)
        earlier = earlier_versions(archive, self.writer.run_key, self.ledger, changed) if changed else {}
        while not self.brake.reason and (videos := self.rounds.take()):
            self.totals.taken += len(videos)
            unprobed = [_to_probe(video, earlier.get(video.uri)) for video in videos]
            rows = self._cut(self.probes.beside(unprobed, self._probes(len(videos)).beside), earlier)
            self.rounds.learn(len(videos), float(sum(map(seconds_of, rows))))
            yield rows
        if self.probes.waiting and not self.brake.reason:
            yield self._cut(self.probes.alone(self._probes(len(self.probes.waiting)).alone), earlier)

    def _work(self, rows: Sequence[Row], metrics: JobMetrics) -> Iterator[Pools]:
        """Rows through all stages; gives the pools that did it."""
        self.progress.expect(self.totals.probed_seconds * len(self.plan.pending) / max(self.totals.probed, 1))
        for part in self.rounds.parts(rows):
            if self.brake.reason:
                self._leave(part)
                continue
            pools = self._pools(len(part))
            metrics.expect(len(part), pools.gpu_segmenters)
            self._finish(self.units.beside(part, self._flows(pools).beside), metrics)
            self.totals.check_dead(self.config, self.plan)
            yield pools

    def _leave(self, rows: Iterable[Row]) -> None:
        """To the next run."""
        self.totals.left.update(wire.unit_from_text(row["unit"]).video.uri for row in rows)

    def _pools(self, rows: int) -> Pools:
        return size_pools(rows, self.config.pool_config(), self.config.device)

    def _probes(self, videos: int) -> ProbeFlows:
        pools = size_pools(videos, self.config.pool_config().model_copy(update={"segmenters": None}), "cpu")
        return ProbeFlows(self.config, frame_size(self.writer.record), self.stop, pools)

    def _cut(self, probed: Rows, earlier: Mapping[str, TouchRecord]) -> list[Row]:
        """A row for every unit that is missing, and one for every video that can't be probed."""
        rows: list[Row] = []
        with closing(probed):  # as long as Ray is there
            for row in probed:
                units = list(map(wire.unit_from_text, row["units"].splitlines()))
                self.totals.probed += 1
                self.patience.moved()
                if row["status"] == OK:
                    begun = as_begun(self.writer.uri, self.writer.run_key, units, self.ledger)
                    missing = rows_of(begun, self.ledger)
                    self.totals.probed_seconds += sum(map(seconds_of, missing))
                    rows.extend(missing)
                elif row["status"] == TOUCHED:
                    self._touch(row, earlier)
                else:
                    rows.append(row)
        return sorted(rows, key=lambda row: str(row["unit"]))

    def _touch(self, row: Row, earlier: Mapping[str, TouchRecord]) -> None:
        """A store that is away for a moment fails the video, not the job."""
        video = wire.unit_from_text(row["unit"]).video
        try:
            with_retries(lambda: record_touch(self.writer.uri, self.writer.run_key, video, earlier[video.uri]))
        except (OutcomeUnknown, NotApplied) as fault:
            self.totals.fail(video, str(fault))
        else:
            self.totals.touched += 1
            self._tell()

    def _tell(self) -> None:
        totals = self.totals
        done = len(totals.videos) + totals.touched
        self.progress.update(videos=done, seconds=totals.video_seconds, dead=len(totals.dead))

    def _finish(self, rows: Rows, metrics: JobMetrics) -> None:
        """Bring rows to their end, and tell of each as it comes.

        Raises `TooManyDeadLetters` when so many die that the rest can't help; what is in work is dropped then.
        """
        totals = self.totals
        with closing(rows):  # as long as Ray is there
            for row in rows:
                unit = totals.add(row)
                self.patience.moved()
                metrics.add(row, unit)
                self._tell()
                self.tracker.log_metrics({**totals.metrics(), **self.progress.snapshot().metrics()}, step=totals.rows)
                LOG.debug("%s %s", row["status"], unit.unit_id)
                if row["status"] == DEAD:
                    note(row, self.attempts)
                    totals.check_doomed(self.config, self.plan)

    def _flows(self, pools: Pools) -> UnitFlows:
        record = self.writer.record
        return UnitFlows(self.config, record, frame_size(record), self.stop, pools, self.registry)


def _to_probe(video: VideoRef, earlier: TouchRecord | None) -> Row:
    return row_to_probe(video, earlier.video.content if earlier else "")


def _stats(started: datetime, seconds: float, totals: Totals, pools: Pools, cluster: Nodes) -> JobStats:
    return JobStats(
        started=started,
        seconds=seconds,
        videos=len(totals.videos),
        bytes=round(totals.bytes),
        video_seconds=totals.video_seconds,
        instances=totals.instances,
        decoders=pools.decode.workers,
        segmenters=pools.segment.workers,
        gpus=math.ceil(pools.segment.workers * pools.segment.gpus),
        cluster_cpus=round(cluster.cpus, 3),
        cluster_gpus=round(cluster.gpus, 3),
        **totals.stage_s,
    )


def _result(
    config: SegmentConfig, run_key: str, plan: Plan, totals: Totals, seconds: float, brake: Brake
) -> SegmentResult:
    ledger = load_ledger(config.archive, run_key, decoder_versions())
    totals.fail_unfinished(plan.pending, ledger)
    dead = dead_keys(ledger)
    return SegmentResult(
        archive=storage.normalise(config.archive),
        run_key=run_key,
        videos=len(plan.videos),
        segmented=len(totals.videos),
        frames=totals.frames,
        instances=totals.instances,
        dead=sum(video.video_key in dead for video in plan.videos),
        failed=totals.failed,
        video_seconds=totals.video_seconds,
        seconds=round(seconds, 3),
        touched=totals.touched,
        left=len(totals.left),
        stopped=brake.reason if totals.left else "",
        pending=len(plan.pending),
    )
