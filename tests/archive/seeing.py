"""All that readers of a small archive see, to compare one archive with another, or with itself at another time."""

from typing import NamedTuple

import pyarrow as pa

from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.read import open_archive, open_frames, open_tracks, videos
from avs_core.archive.schema import FRAME_SCHEMA, ROW_SCHEMA
from tests.archive import sample

ORDER = [("video_uri", "ascending"), ("object_id", "ascending"), ("frame_time_us", "ascending")]
FRAME_ORDER = [("video_uri", "ascending"), ("second", "ascending"), ("phase", "ascending")]


class Seen(NamedTuple):
    """All that a reader sees, in one order."""

    rows: pa.Table
    frames: pa.Table
    tracks: pa.Table
    videos: pa.Table


def plain(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("video_uri")
    return table.set_column(index, "video_uri", table["video_uri"].cast(pa.string())).combine_chunks()


def seen(uri: str, snapshot: int | None = None) -> Seen:
    rows = (instances := open_archive(uri, snapshot=snapshot)).to_table()
    frames = (looked := open_frames(uri, snapshot=snapshot)).to_table()
    assert (instances.count_rows(), looked.count_rows()) == (rows.num_rows, frames.num_rows)
    assert rows.schema == ROW_SCHEMA
    assert frames.schema == FRAME_SCHEMA
    return Seen(
        plain(rows).sort_by(ORDER),
        plain(frames).sort_by(FRAME_ORDER),
        open_tracks(uri, snapshot=snapshot),
        videos(uri, snapshot=snapshot),
    )


def fill(uri: str, names: str = "abcd", version: int = 1) -> ArchiveWriter:
    """A video a letter, cut into one, two or three units."""
    writer = sample.opened(uri)
    for number, name in enumerate(names):
        for unit in sample.units(sample.video(name, version), number % 3 + 1):
            sample.commit(writer, unit, seed=100 * version + 10 * number + unit.index)
    return writer
