"""What was found, video by video: the short form of a run."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from avs_core.archive.read import dead_letters, open_archive, open_frames, open_videos
from avs_core.clip import VideoRef


@dataclass(frozen=True)
class Finding:
    """One video of a run.

    frames      how many frames were looked at, `sounding` in how many something sounds (object 0 has a pixel)
    area_share  mean share of the picture that sounds, over the sounding frames; `score` likewise
    note        the class of its dead letter, or the flags of its decoding
    """

    uri: str
    frames: int
    sounding: int
    area_share: float
    score: float
    note: str

    @property
    def name(self) -> str:
        """The last part of the URI."""
        return self.uri.rpartition("/")[2]


def findings(archive: str, run: str | None = None, videos: Iterable[VideoRef] | None = None) -> list[Finding]:
    """The findings of a run by URI; of given videos only, where some are given, and the letters of these versions."""
    if videos is None:
        rows, frames = open_archive(archive, run), open_frames(archive, run)
    else:
        videos = list(videos)
        rows, frames = open_videos(archive, run, [video.video_id for video in videos])
    looked = {row["video_uri"]: row for row in _looked_at(frames).to_pylist()}
    heard = {row["video_uri"]: row for row in _sounding(rows).to_pylist()}
    versions = {video.uri: video.fingerprint for video in videos} if videos is not None else None
    dead = {
        row["video_uri"]: row["error_class"]
        for row in dead_letters(archive, run).to_pylist()
        if versions is None or versions.get(row["video_uri"]) == row["fingerprint"]
    }
    wanted = {*looked, *dead} if versions is None else set(versions)
    return [_finding(uri, looked.get(uri), heard.get(uri), dead.get(uri)) for uri in sorted(wanted)]


def _looked_at(dataset: ds.Dataset) -> pa.Table:
    """Of each video: how many frames were looked at, and the flags of its decoding."""
    columns = {name: pc.field(name).cast(pa.string()) for name in ("video_uri", "flags")}
    frames = dataset.to_table(columns=columns)
    return frames.group_by("video_uri").aggregate([([], "count_all"), ("flags", "distinct")])


def _sounding(dataset: ds.Dataset) -> pa.Table:
    """Of each video: how many frames hold object 0, its mean share of the picture, its mean score."""
    columns = {
        "video_uri": pc.field("video_uri").cast(pa.string()),
        "share": pc.field("area") / (pc.field("height") * pc.field("width")).cast(pa.float64()),
        "score": pc.field("score"),
    }
    rows = dataset.to_table(columns=columns, filter=pc.field("object_id") == 0)
    return rows.group_by("video_uri").aggregate([([], "count_all"), ("share", "mean"), ("score", "mean")])


def _finding(uri: str, looked: dict[str, Any] | None, heard: dict[str, Any] | None, dead: str | None) -> Finding:
    return Finding(
        uri=uri,
        frames=looked["count_all"] if looked else 0,
        sounding=heard["count_all"] if heard else 0,
        area_share=heard["share_mean"] if heard else 0.0,
        score=heard["score_mean"] if heard else 0.0,
        note=dead or (_all_flags(looked["flags_distinct"]) if looked else ""),
    )


def _all_flags(found: list[str]) -> str:
    """Of all rows: those of a unit that was dead once may differ from the others'."""
    return ",".join(sorted({flag for flags in found for flag in flags.split(",") if flag}))
