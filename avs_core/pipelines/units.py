"""How a video is cut into units, and which of them an archive lacks."""

from collections.abc import Iterable

from avs_core.archive.ledger import Ledger
from avs_core.clip import Unit, VideoRef
from avs_core.errors import ConfigError

WINDOW_S = 5
"""Seconds of a model window; units are cut at its multiples, so that no window is split."""


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
