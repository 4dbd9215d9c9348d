"""The values that flow through a job: which video, which part of it, what was decoded, what was found.

All times are seconds of the *video clock*: zero is the presentation time of the first video frame.
All intervals are half-open.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from avs_core.errors import ConfigError

AUDIO_RATE = 16_000
"""Hz of every decoded waveform: what VGGish was trained on."""


MISSING_FINGERPRINT = "missing"
"""Stands in for a manifest's entry that could not be found: the decoder will say so in a dead letter."""


def video_id_of(uri: str) -> str:
    """16 hex digits that stand for the URI of a video in an archive."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def video_key_of(unit_id: str) -> str:
    """The `VideoRef.video_key` in the id of a unit."""
    return unit_id.partition("-")[0]


@dataclass(frozen=True, slots=True)
class VideoRef:
    """One video file as the planner saw it.

    `fingerprint` identifies the content without reading it (etag and size; on disk size and modification time; of a
    file that was put back, when that was, too, see avs_core.archive.versions);
    `modified_us` (µs since 1970) orders two versions of the same URI. `content` is the SHA-256 of what was read,
    "" where nobody has read it or the store's etag says as much: it tells a touched file from a changed one.
    """

    uri: str
    size: int
    fingerprint: str
    modified_us: int = 0
    content: str = field(default="", compare=False)

    @property
    def video_id(self) -> str:
        """16 hex digits that stand for the URI: the same file keeps its id when its content changes."""
        return video_id_of(self.uri)

    @property
    def video_key(self) -> str:
        """The video id and 12 hex digits over the fingerprint: one version of one video.

        So a listing of names tells, without opening anything, which videos an archive knows in another version.
        """
        return self.video_id + hashlib.sha256(self.fingerprint.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Unit:
    """What one worker does at once: seconds [start_s, stop_s) of one video.

    `stop_s` is the whole-second end of the unit; `of` is how many units the video was cut into and
    `index` which of them this is, so that a reader can tell a finished video from a half-done one.
    """

    video: VideoRef
    start_s: int
    stop_s: int
    index: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.stop_s:
            raise ConfigError(
                f"a unit needs 0 <= start_s < stop_s, got [{self.start_s}, {self.stop_s}) of {self.video.uri}"
            )
        if not 0 <= self.index < self.of:
            raise ConfigError(f"a unit's index must lie in [0, {self.of}), got {self.index}")

    @property
    def unit_id(self) -> str:
        """`<video key>-<index>of<of>`: a changed file gives other units, and a listing tells a finished video."""
        return f"{self.video.video_key}-{self.index:05d}of{self.of:05d}"

    @property
    def shard(self) -> str:
        """Two hex digits that spread the files of a run over 256 folders."""
        return self.unit_id[:2]


@dataclass(frozen=True)
class Clip:
    """The decoded content of a unit.

    frames         (S, R, h, w, 3) uint8 RGB at the model's size: S seconds, R phases a second
    frame_index    (S, R) position of each frame in the source's presentation order, counted from the first frame that
                   is shown at the unit's start or later: below 0 for one that has been shown since before;
                   -1 throughout where `shown` is None
    frame_time_us  (S, R) µs on the video clock, from the PTS
    waveform       (n,) float32 mono at 16 kHz, in [-1, 1]; sample 0 sounds at `audio_start_s`
    height, width  of the source frame as displayed (after rotation)
    shown          how many frames of the source are first shown within the unit; None where nobody can tell
    flags          what a reader should know: "no_audio", "audio_padded", "resolution_change", "damaged", …
    """

    frames: UInt8[np.ndarray, "S R h w 3"]
    frame_index: Int64[np.ndarray, "S R"]
    frame_time_us: Int64[np.ndarray, "S R"]
    waveform: Float32[np.ndarray, " n"]
    audio_start_s: float
    height: int
    width: int
    shown: int | None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Instance:
    """One object in one frame. `object_id` 0 is the union: everything that sounds.

    `counts` is the COCO RLE of the mask at (height, width); the scores lie in [0, 1];
    category and its scores are None for object 0 of a model without categories.
    """

    object_id: int
    counts: bytes
    height: int
    width: int
    area: int
    bbox: tuple[int, int, int, int]
    score: float
    sounding: bool = True
    category: str | None = None
    category_score: float | None = None
    audio_score: float | None = None
