"""What the archive's tables look like, how they become Parquet, and what names a run.

Version 3 (1 had 16 bits for the number of an object, 2 named units otherwise). A row is one instance in one frame; a
frame that was looked at and holds none is a row of the frames table alone. What is constant for a file (run, unit,
schema version) is in the file's metadata, not in rows.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from avs_core.clip import Instance, VideoRef
from avs_core.errors import CorruptArchive

SCHEMA_VERSION = 3
ROW_GROUP = 20_000
"""Rows of a row group: about 4 MB of masks, so that a reader can skip to one video or object."""

MAX_UNPACKED = 4 << 30
"""Bytes of a file that is read whole: the manifest of ten million units has fewer."""

ROW_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),  # 16 hex digits over the URI
        pa.field("video_uri", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("frame_index", pa.int32(), nullable=False),  # presentation order in the source; -1: unknown
        pa.field("frame_time_us", pa.int64(), nullable=False),  # from the PTS, zero at the first frame
        pa.field("object_id", pa.int32(), nullable=False),  # of its video; 0: the union, everything that sounds
        pa.field("category", pa.string()),
        pa.field("category_score", pa.float32()),
        pa.field("audio_score", pa.float32()),  # of that category
        pa.field("sounding", pa.bool_(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),  # of the mask: the source frame as displayed
        pa.field("width", pa.int32(), nullable=False),
        pa.field("counts", pa.binary(), nullable=False),  # COCO RLE, pycocotools' bytes
        pa.field("area", pa.int32(), nullable=False),  # pixels
        pa.field("x0", pa.int32(), nullable=False),  # bounding box, pixels
        pa.field("y0", pa.int32(), nullable=False),
        pa.field("w", pa.int32(), nullable=False),
        pa.field("h", pa.int32(), nullable=False),
    ]
)
"""Under data/: sorted by object, then frame.

Each file has its own dictionary of `video_uri`: `table.unify_dictionaries()` before a group-by in pyarrow."""

SIGHTING_SCHEMA = ROW_SCHEMA.append(pa.field("look", pa.int32(), nullable=False))
"""What a unit saw, before its objects have the numbers of the whole video: `object_id` counts the objects of a frame,
and `look` the frames of the unit in the order in which they were looked at. Sorted by these two, `look` first.
`frame_index` counts from the unit's first frame, see avs_core.clip.Clip."""

FRAME_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("frame_index", pa.int32(), nullable=False),
        pa.field("frame_time_us", pa.int64(), nullable=False),
        pa.field("second", pa.int32(), nullable=False),  # of the video clock; its sound was heard
        pa.field("phase", pa.int16(), nullable=False),  # which of the run's looks at that second
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("n_instances", pa.int32(), nullable=False),
        pa.field("has_audio", pa.bool_(), nullable=False),
        pa.field("flags", pa.string(), nullable=False),  # comma-separated, "" for none
    ]
)
"""Under frames/: sorted by second, then phase."""

TRACK_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("object_id", pa.int32(), nullable=False),
        pa.field("category", pa.string()),  # the commonest of its rows; of equals the first in the alphabet
        pa.field("first_time_us", pa.int64(), nullable=False),  # frame_time_us of its first and last row
        pa.field("last_time_us", pa.int64(), nullable=False),
        pa.field("frames", pa.int64(), nullable=False),  # its rows
        pa.field("sounding_frames", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # mean
        pa.field("area_share", pa.float64(), nullable=False),  # mean of area / (height * width)
        pa.field("x0", pa.int32(), nullable=False),  # the box around all its boxes, pixels
        pa.field("y0", pa.int32(), nullable=False),
        pa.field("w", pa.int32(), nullable=False),
        pa.field("h", pa.int32(), nullable=False),
    ]
)
"""Under tracks/, and from `open_tracks`: one object of one video, sorted by video and object."""

_DICTIONARY_COLUMNS = ("video_id", "video_uri", "category", "object_id", "height", "width", "flags")


class RunRecord(BaseModel):
    """Everything that decides what the masks are; a change of any of it is another run.

    Batch size, worker counts and paths are left out on purpose: they must not matter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    preprocessing: dict[str, JsonValue] = {}
    thresholds: dict[str, float] = {}
    categories: tuple[str, ...] = ()
    numerics: dict[str, JsonValue] = {}
    schema_version: int = SCHEMA_VERSION


def run_key(record: RunRecord) -> str:
    """`r` and 16 hex digits that name the run; the letter keeps readers from taking it for a number."""
    return "r" + hashlib.sha256(canonical_json(record.model_dump(mode="json"))).hexdigest()[:16]


def canonical_json(value: Any) -> bytes:
    """JSON with one form for one value: sorted keys, UTF-8, a newline at the end. Raises ValueError for NaN."""
    return (json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode()


@dataclass(frozen=True)
class FrameRow:
    """A frame that was looked at, with what was found in it.

    `second` is that of the video clock whose sound was heard, `phase` which of the run's looks at it. `frame_index` and
    `flags` are those of the clip: see `within_video`. An instance without a pixel becomes no row.
    """

    second: int
    phase: int
    frame_index: int
    frame_time_us: int
    height: int
    width: int
    has_audio: bool
    flags: tuple[str, ...] = ()
    instances: tuple[Instance, ...] = ()

    @property
    def visible(self) -> list[Instance]:
        """The instances that have a pixel."""
        return [instance for instance in self.instances if instance.area > 0]


def frame_table(video: VideoRef, frames: Iterable[FrameRow]) -> pa.Table:
    """The frames of one video as a table of `FRAME_SCHEMA`, sorted by second and phase."""
    rows = [
        {
            "video_id": video.video_id,
            "video_uri": video.uri,
            "frame_index": frame.frame_index,
            "frame_time_us": frame.frame_time_us,
            "second": frame.second,
            "phase": frame.phase,
            "height": frame.height,
            "width": frame.width,
            "n_instances": len(frame.visible),
            "has_audio": frame.has_audio,
            "flags": ",".join(frame.flags),
        }
        for frame in sorted(frames, key=lambda frame: (frame.second, frame.phase))
    ]
    return pa.Table.from_pylist(rows, schema=FRAME_SCHEMA)


def sighting_table(video: VideoRef, frames: Iterable[FrameRow]) -> pa.Table:
    """The instances in the frames of one unit as a table of `SIGHTING_SCHEMA`."""
    looks = sorted(frames, key=lambda frame: (frame.second, frame.phase))
    rows = [
        {**_row(video, frame, instance), "look": look}
        for look, frame in enumerate(looks)
        for instance in sorted(frame.visible, key=lambda instance: instance.object_id)
    ]
    return pa.Table.from_pylist(rows, schema=SIGHTING_SCHEMA)


def instance_table(video: VideoRef, frames: Iterable[FrameRow]) -> pa.Table:
    """The instances in the frames of one video, which have their numbers, as a table of `ROW_SCHEMA`.

    A frame that stands for two seconds (a slow video, or its end) gives a row for each, in their order.
    """
    sightings = sighting_table(video, frames)
    return with_numbers(sightings, sightings["object_id"].to_pylist())


def with_numbers(sightings: pa.Table, numbers: Sequence[int]) -> pa.Table:
    """Rows of `ROW_SCHEMA` with these numbers as their `object_id`, sorted by object, then frame."""
    place = ROW_SCHEMA.get_field_index("object_id")
    numbered = sightings.set_column(place, ROW_SCHEMA.field(place), pa.array(numbers, ROW_SCHEMA.field(place).type))
    order = [("object_id", "ascending"), ("frame_time_us", "ascending"), ("look", "ascending")]
    return numbered.sort_by(order).drop_columns("look")


def within_video(table: pa.Table, before: int | None, flags: Sequence[str] = ()) -> pa.Table:
    """A unit's table with what only the whole video knows: its flags, and its frames counted from the first of all.

    `before` is how many frames come before those of the unit, None if nobody knows.
    """
    place = table.schema.get_field_index("frame_index")
    own = table["frame_index"]
    counted = pc.add(own, pa.scalar(before, own.type)) if before is not None else pa.array([-1] * len(own), own.type)
    table = table.set_column(place, table.schema.field(place), counted)
    if "flags" not in table.schema.names:
        return table
    place = table.schema.get_field_index("flags")
    return table.set_column(place, table.schema.field(place), pa.array([",".join(flags)] * len(own), pa.string()))


def _row(video: VideoRef, frame: FrameRow, instance: Instance) -> dict[str, Any]:
    x0, y0, w, h = instance.bbox
    return {
        "video_id": video.video_id,
        "video_uri": video.uri,
        "frame_index": frame.frame_index,
        "frame_time_us": frame.frame_time_us,
        "object_id": instance.object_id,
        "category": instance.category,
        "category_score": instance.category_score,
        "audio_score": instance.audio_score,
        "sounding": instance.sounding,
        "score": instance.score,
        "height": instance.height,
        "width": instance.width,
        "counts": instance.counts,
        "area": instance.area,
        "x0": x0,
        "y0": y0,
        "w": w,
        "h": h,
    }


def to_parquet(table: pa.Table, metadata: dict[str, str]) -> bytes:
    """The table as one Parquet file: zstd, dictionaries for what repeats. Same table, same bytes."""
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, table.schema, metadata) as writer:
        writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP)
    return bytes(sink.getvalue())


def read_table(content: bytes, uri: str) -> pa.Table:
    """The table of a Parquet file of an archive, all in memory.

    Raises CorruptArchive for one that says it unpacks to more than `MAX_UNPACKED`, before any of it is unpacked.
    """
    file = pq.ParquetFile(pa.BufferReader(content))
    groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
    if (unpacked := sum(group.total_byte_size for group in groups)) > MAX_UNPACKED:
        raise CorruptArchive(
            f"a file of an archive that is read whole may have at most {MAX_UNPACKED} bytes unpacked; {uri} has "
            f"{unpacked}: it is not one that this program wrote"
        )
    return file.read()


def parquet_writer(sink: Any, schema: pa.Schema, metadata: dict[str, str]) -> pq.ParquetWriter:
    """What writes the archive's tables, each row group as it comes; `sink` is a binary file."""
    return pq.ParquetWriter(
        sink,
        schema.with_metadata(metadata),
        compression="zstd",
        compression_level=3,
        use_dictionary=_known(_DICTIONARY_COLUMNS, schema.names),
    )


def _known(names: Sequence[str], present: Sequence[str]) -> list[str]:
    return [name for name in names if name in present]
