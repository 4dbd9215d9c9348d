"""Tracks: each object of a video in one row. The same function makes them at compaction and on the fly."""

import pyarrow as pa
import pyarrow.compute as pc

from avs_core.archive.schema import TRACK_SCHEMA

KEYS = ["video_id", "video_uri", "object_id"]
TRACK_ORDER = [("video_uri", "ascending"), ("object_id", "ascending")]
USED = [*KEYS, "frame_time_us", "category", "sounding", "score", "area", "height", "width", "x0", "y0", "w", "h"]


def tracks_of(rows: pa.Table) -> pa.Table:
    """The tracks (`TRACK_SCHEMA`) of whole videos, given their rows (`ROW_SCHEMA`) sorted by video and object.

    One thread: means are sums in the order of the rows, the same on every machine.
    """
    table = rows.select(USED).set_column(USED.index("video_uri"), "video_uri", rows["video_uri"].cast(pa.string()))
    pixels = pc.multiply(table["height"].cast(pa.int64()), table["width"].cast(pa.int64()))
    table = table.append_column("share", pc.divide(table["area"].cast(pa.float64()), pixels.cast(pa.float64())))
    table = table.append_column("x1", pc.add(table["x0"], table["w"]))
    table = table.append_column("y1", pc.add(table["y0"], table["h"]))
    wanted = [
        ("frame_time_us", "min"),
        ("frame_time_us", "max"),
        ("frame_time_us", "count"),
        ("sounding", "sum"),
        ("score", "mean"),
        ("share", "mean"),
        *((name, "min") for name in ("x0", "y0")),
        *((name, "max") for name in ("x1", "y1")),
    ]
    found = table.group_by(KEYS, use_threads=False).aggregate(wanted)
    found = found.join(_commonest(table), KEYS, use_threads=False).sort_by(TRACK_ORDER)
    columns = {
        **{name: found[name] for name in (*KEYS, "category")},
        "first_time_us": found["frame_time_us_min"],
        "last_time_us": found["frame_time_us_max"],
        "frames": found["frame_time_us_count"],
        "sounding_frames": found["sounding_sum"].cast(pa.int64()),
        "score": found["score_mean"],
        "area_share": found["share_mean"],
        "x0": found["x0_min"],
        "y0": found["y0_min"],
        "w": pc.subtract(found["x1_max"], found["x0_min"]),
        "h": pc.subtract(found["y1_max"], found["y0_min"]),
    }
    return pa.table([columns[name] for name in TRACK_SCHEMA.names], schema=TRACK_SCHEMA)


def _commonest(table: pa.Table) -> pa.Table:
    """The commonest category of each object that has any."""
    named = table.filter(pc.is_valid(table["category"]))
    counted = named.group_by([*KEYS, "category"], use_threads=False).aggregate([([], "count_all")])
    ranked = counted.sort_by([("count_all", "descending"), ("category", "ascending")])
    return (
        ranked.group_by(KEYS, use_threads=False).aggregate([("category", "first")]).rename_columns([*KEYS, "category"])
    )
