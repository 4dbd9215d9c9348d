"""What is left to do: the videos that were found, against what the archive already holds.

A video is *settled* when every unit of one cut of it is committed or dead. Only unsettled videos are
probed (their length decides how they are cut) and only their missing units are planned, so a rerun
over a finished archive opens no video at all.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from avs_core.archive.ledger import Ledger
from avs_core.clip import Unit, VideoRef
from avs_core.errors import ConfigError

WINDOW_S = 5
"""Seconds of a model window; units are cut at its multiples, so that no window is split."""


@dataclass(frozen=True)
class Plan:
    """What is to be done and what need not be. `units` are those still missing of the probed videos."""

    videos: tuple[VideoRef, ...]
    pending: tuple[VideoRef, ...]

    @property
    def settled(self) -> int:
        """How many of the videos need nothing."""
        return len(self.videos) - len(self.pending)


def make_plan(videos: Iterable[VideoRef], ledger: Ledger) -> Plan:
    """Keep the videos that the ledger does not show as settled."""
    videos = tuple(videos)
    settled = settled_videos([*ledger.committed, *ledger.dead])
    return Plan(videos, tuple(video for video in videos if video.video_key not in settled))


def settled_videos(unit_ids: Iterable[str]) -> set[str]:
    """The video keys of which every unit of one cut is among the ids (`Unit.unit_id`)."""
    cuts: Counter[tuple[str, int]] = Counter()
    for unit_id in set(unit_ids):
        key, part = unit_id.split("-")
        cuts[key, int(part.split("of")[1])] += 1
    return {key for (key, of), count in cuts.items() if count == of}


def cut(video: VideoRef, seconds: int, unit_s: int) -> list[Unit]:
    """Cut a video of so many whole seconds into units of at most `unit_s`, a multiple of the window."""
    if unit_s < WINDOW_S or unit_s % WINDOW_S:
        raise ConfigError(f"a unit's length must be a positive multiple of {WINDOW_S} s, got {unit_s} s")
    starts = range(0, seconds, unit_s)
    return [Unit(video, start, min(start + unit_s, seconds), index, len(starts)) for index, start in enumerate(starts)]


def unprobed(video: VideoRef) -> Unit:
    """The unit that a dead letter names when the video could not even be probed."""
    return Unit(video, 0, 1)


def missing_units(units: Iterable[Unit], ledger: Ledger) -> list[Unit]:
    """Those of the units that are neither committed nor staged nor dead."""
    done = (ledger.committed, ledger.staged, ledger.dead)
    return [unit for unit in units if not any(unit.unit_id in ids for ids in done)]
