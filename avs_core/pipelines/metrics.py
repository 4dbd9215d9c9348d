"""What a running job tells Prometheus: counters that the driver feeds from the rows that come back.

Stages stay free of Ray: they put seconds and counts into their rows, and each row is counted once, by the driver.
Ray adds the prefix `ray_`, and `_total` to counters, and serves them where `ray start --metrics-export-port` says.
Sums are counters and not histograms, because Ray makes a histogram's sum from the middles of its buckets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ray.util.metrics import Counter, Gauge

from avs_core.clip import Unit
from avs_core.pipelines.stages import DEAD, FAILED, OK, Row

STAGES = ("decode", "segment", "commit")
WAITS = ("segment", "commit")
"""Stages with a queue before them; decoding starts from the list of what is to be done."""


@dataclass(frozen=True)
class Series:
    """A metric as it is declared: its name without what Ray adds, its kind, its meaning and its labels."""

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """The name in Prometheus."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


VIDEOS = Series("avs_videos", "counter", "Videos of which a first unit was segmented.")
VIDEO_SECONDS = Series("avs_video_seconds", "counter", "Seconds of video segmented.")
FRAMES = Series("avs_frames", "counter", "Frames looked at.")
MASKS = Series("avs_masks", "counter", "Masks written.")
UNITS = Series("avs_units", "counter", "Units that came back, by outcome: ok, dead or failed.", ("outcome",))
DEAD_LETTERS = Series("avs_dead_letters", "counter", "Units that became dead letters, by class.", ("error_class",))
STAGE_SECONDS = Series("avs_stage_seconds", "counter", "Seconds that workers spent in a stage.", ("stage",))
WAIT_SECONDS = Series(
    "avs_queue_wait_seconds", "counter", "Seconds that units lay ready before a stage took them.", ("stage",)
)
GPU_BUSY_SECONDS = Series("avs_gpu_busy_seconds", "counter", "Seconds that segmenters with a GPU worked on a unit.")
GPU_SEGMENTERS = Series("avs_gpu_segmenters", "gauge", "Segmenters with a GPU, of the job that runs.")
UNITS_LEFT = Series("avs_units_left", "gauge", "Units of the job that runs that began and have not come back.")

ALL = (
    VIDEOS,
    VIDEO_SECONDS,
    FRAMES,
    MASKS,
    UNITS,
    DEAD_LETTERS,
    STAGE_SECONDS,
    WAIT_SECONDS,
    GPU_BUSY_SECONDS,
    GPU_SEGMENTERS,
    UNITS_LEFT,
)
"""Every metric there is; the dashboard shows each of them."""


class JobMetrics:
    """Counts the outcomes of one job for Prometheus, while its block lasts. Needs a connected Ray.

    with JobMetrics() as metrics:
        metrics.expect(units=40, gpu_segmenters=2)
        metrics.add(row, unit)
    """

    def __init__(self) -> None:
        self._counters = {s: Counter(s.name, s.about, s.labels) for s in ALL if s.kind == "counter"}
        self._gauges = {s: Gauge(s.name, s.about, s.labels) for s in ALL if s.kind == "gauge"}
        self._left = self._gpu_segmenters = 0
        self._videos: set[str] = set()

    def __enter__(self) -> "JobMetrics":
        return self

    def __exit__(self, *stopped: object) -> None:
        """A gauge keeps its last value for as long as the cluster lives: a job that ended has nothing left."""
        for gauge in self._gauges.values():
            gauge.set(0)

    def expect(self, units: int, gpu_segmenters: int) -> None:
        """So many more units begin; those that wait to run alone are still among those that are left."""
        self._left += units
        self._gpu_segmenters = gpu_segmenters
        self._gauges[GPU_SEGMENTERS].set(gpu_segmenters)
        self._gauges[UNITS_LEFT].set(self._left)

    def add(self, row: Row, unit: Unit) -> None:
        """Count one outcome, the row that came back for the unit."""
        self._left -= 1
        self._gauges[UNITS_LEFT].set(self._left)
        if row["status"] in (OK, DEAD, FAILED):
            self._count(UNITS, 1, {"outcome": row["status"]})
        for stage in STAGES:
            self._count(STAGE_SECONDS, row[f"{stage}_s"], {"stage": stage})
        for stage in WAITS:
            self._count(WAIT_SECONDS, row[f"{stage}_wait_s"], {"stage": stage})
        self._count(GPU_BUSY_SECONDS, row["segment_s"] if self._gpu_segmenters else 0.0)
        if row["status"] == DEAD:
            self._count(DEAD_LETTERS, 1, {"error_class": row["error_class"]})
        if row["status"] == OK:
            self._add_done(row, unit)

    def _add_done(self, row: Row, unit: Unit) -> None:
        self._count(VIDEOS, 0 if unit.video.uri in self._videos else 1)
        self._videos.add(unit.video.uri)
        self._count(VIDEO_SECONDS, unit.stop_s - unit.start_s)
        self._count(FRAMES, row["n_frames"])
        self._count(MASKS, row["n_instances"])

    def _count(self, series: Series, value: float | int, labels: Mapping[str, str] | None = None) -> None:
        if value > 0:  # Ray's counters refuse to add nothing
            self._counters[series].inc(value, dict(labels or {}))
