"""Which frames are looked at: pure arithmetic on the video clock.

The published preprocessing takes frame t at index int(t·fps + 15/16·fps), near the end of second t. On the video
clock that is the frame shown at t + 0.9375 s, whatever the frame rate does.
"""

import math

import numpy as np
from jaxtyping import Float64, Int64

from avs_core.clip import AUDIO_RATE
from avs_core.errors import ConfigError

PUBLISHED_PHASE = 15 / 16
"""Seconds into each second at which the published preprocessing looks."""


def phases(rate: int) -> tuple[float, ...]:
    """Offsets into a second, ascending in [0, 1), of `rate` evenly spaced looks; one of them is the published one.

    Raises ConfigError unless rate >= 1.
    """
    if rate < 1:
        raise ConfigError(f"the rate must be at least 1 frame per second, got {rate}")
    return tuple(sorted((PUBLISHED_PHASE + k / rate) % 1 for k in range(rate)))


def wanted_times(start_s: int, stop_s: int, rate: int) -> Float64[np.ndarray, "S R"]:
    """Seconds on the video clock at which frames of [start_s, stop_s) are wanted."""
    if not 0 <= start_s < stop_s:
        raise ConfigError(f"an interval needs 0 <= start_s < stop_s, got [{start_s}, {stop_s})")
    seconds = np.arange(start_s, stop_s, dtype=np.float64)
    return np.stack([seconds + phase for phase in phases(rate)], axis=1)


def sound_margins(rate: int, reach: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Whole seconds of sound before and after a unit that its `rate` looks a second hear.

    The sound of a look moves with its phase: earlier than that of the published one for most, later for those that lie
    between it and the next second, as some do above 16 looks. `reach` is that of the front end, samples before and
    after: see avs_core.audio.FrontEnd. Raises ConfigError unless rate >= 1.
    """
    shifts = [round((phase - PUBLISHED_PHASE) * AUDIO_RATE) for phase in phases(rate)]
    before, after = reach[0] - shifts[0], reach[1] + shifts[-1]
    return math.ceil(before / AUDIO_RATE), math.ceil(after / AUDIO_RATE)


def seconds_of(duration_s: float) -> int:
    """How many seconds a video has: half up, and at least one, so that the shortest video is looked at once."""
    return max(1, math.floor(duration_s + 0.5))


def choose_frames(pts_us: Int64[np.ndarray, " n"], wanted_us: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """Index of the frame shown at each wanted time: the last with pts <= wanted.

    `pts_us` ascends. Before the first frame the first is taken, past the end the last. Both in µs of one clock:
    a PTS rounded to µs compares as the exact one does in every time base up to 1/60000 s.
    """
    if not len(pts_us):
        raise ValueError("there is no frame to choose from")
    return np.maximum(np.searchsorted(pts_us, wanted_us, side="right") - 1, 0).astype(np.int64)


def to_us(seconds: Float64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
    """Whole µs nearest to the given seconds."""
    return np.rint(seconds * 1e6).astype(np.int64)
