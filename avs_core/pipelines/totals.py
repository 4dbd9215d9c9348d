"""What a job has done so far, and how many dead videos it bears."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from avs_core import storage
from avs_core.archive.ledger import Ledger, dead_keys, video_keys
from avs_core.clip import Unit, VideoRef
from avs_core.errors import TooManyDeadLetters
from avs_core.pipelines import wire
from avs_core.pipelines.plan import Plan, State
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import DEAD, OK, STOPPED, WHOLE, Row

LOG = logging.getLogger(__name__)

JUDGED_FROM = 2_000
"""Videos of a job that must have come to their end before their dead ones speak for the rest: the broken ones may all
lie in its first folder."""

JUDGED_EVERY = 500
"""Dead videos: after so many more the limit is looked at before a round is over."""


@dataclass
class Totals:
    """What has come back from the workers so far."""

    rows: int = 0
    frames: int = 0
    instances: int = 0
    failed: int = 0
    touched: int = 0
    taken: int = 0
    probed: int = 0
    probed_seconds: float = 0.0
    bytes: float = 0.0
    video_seconds: float = 0.0
    videos: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)
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
            self.bytes += unit.video.size / unit.of
            self.videos.add(unit.video.uri)
        elif row["status"] == WHOLE:
            self.videos.add(unit.video.uri)
        elif row["status"] == STOPPED:
            self.left.add(unit.video.uri)
        elif row["status"] == DEAD:
            self.dead[unit.video.uri] = row["error_class"]
        else:
            self.fail(unit.video, row["message"])
        return unit

    def fail(self, video: VideoRef, message: str) -> None:
        """Count what the store or the machine kept us from."""
        self.failed += 1
        self.unfinished.add(video.uri)
        LOG.warning("not done, the next run takes it up again: %s: %s", video.uri, message)

    def fail_unfinished(self, videos: Iterable[VideoRef], ledger: Ledger) -> None:
        """Count those that all workers reported done and that the archive does not hold as a whole.

        What others of their units had staged was removed meanwhile, by gc or by a person who had letters tried again.
        """
        keys, dead = video_keys(ledger), dead_keys(ledger)
        for video in videos:
            told = video.uri in self.left or video.uri in self.unfinished
            if not told and video.video_key not in dead and not keys.settled(video.video_key):
                self.fail(video, "a part of it that was done before is gone")

    def check_dead(self, config: SegmentConfig, plan: Plan) -> None:
        """Raises `TooManyDeadLetters` once enough videos came to their end to tell: whatever kills all of them, a
        broken decoder say, is not to bury a million before the job says so.

        What earlier jobs settled counts, as at the end: a job may have little to do but ask once more for the dead.
        """
        ended = plan.settled + self.touched + len(self.videos | self.dead.keys())
        if ended >= JUDGED_FROM:
            check_dead_share(plan.counts[State.DEAD] + len(self.dead), ended, config)

    def check_doomed(self, config: SegmentConfig, plan: Plan) -> None:
        """Raises `TooManyDeadLetters` if they are too many even when all others that were taken up come through.

        Within a round, when there are many more than at the last look.
        """
        if len(self.dead) % JUDGED_EVERY:
            return
        among = plan.settled + self.taken
        if among >= JUDGED_FROM:
            check_dead_share(plan.counts[State.DEAD] + len(self.dead), among, config)

    def metrics(self) -> dict[str, float]:
        """The same as flat numbers."""
        return {
            "units": self.rows,
            "frames": self.frames,
            "instances": self.instances,
            "dead": len(self.dead),
            "failed": self.failed,
            "touched": self.touched,
            "video_seconds": self.video_seconds,
            **{f"stage.{name}": value for name, value in self.stage_s.items()},
        }


def check_dead_share(dead: int, videos: int, config: SegmentConfig) -> None:
    """Raises `TooManyDeadLetters` when more of these videos are dead than the job allows."""
    if dead > config.max_dead_share * videos:
        raise TooManyDeadLetters(
            f"at most {config.max_dead_share:.0%} of a job's videos may be dead, {dead} of {videos} are: "
            f"`avs dead {storage.normalise(config.archive)}` says why"
        )
