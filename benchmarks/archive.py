"""Questions to an archive before and after compaction, with pyarrow and DuckDB: times, ratios, the memory it takes.

Rows go through the real writer: masks with uneven edges of cameras that look all year, a unit a video. Cold means that
the files were put out of the page cache before each question. Ten million rows in units of 500 s, as hours of video
give them (10,000 units, 2 GB of disk that are cleaned up in the end):
`python -m benchmarks.archive --rows 10000000 --per-unit 1000`.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from avs_core import masks
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.compact import compact
from avs_core.archive.gc import gc
from avs_core.archive.read import committed_files, open_archive, open_videos, videos
from avs_core.archive.schema import FRAME_SCHEMA, ROW_SCHEMA, RunRecord
from avs_core.clip import Unit, VideoRef
from benchmarks.measure import Row, alternately, highest_mb, nothing, peak_mb

ROWS = 100_000
PER_UNIT = 100
"""Two masks a second."""
HEIGHT, WIDTH = 360, 640
SHAPES = 40_000
"""A whole page of a Parquet file holds fewer."""
REACH = 90
CATEGORIES = np.array(["dog", "speech", "car", "bird", "guitar", "rain", "train", "cat"])
START = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = RunRecord(model="benchmark", weights_sha256="00" * 32)
MARCH = (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
TOP = 10

Shape = tuple[bytes, int, tuple[int, int, int, int]]
"""RLE, area in pixels, box."""


def run(rows: int = ROWS, per_unit: int = PER_UNIT) -> list[Row]:
    """Sizes, seconds before and after compaction and cold and warm with their ratios, and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "archive")
        shapes = _shapes(min(rows, SHAPES))
        started = time.perf_counter()
        units = write(uri, rows, per_unit, shapes)
        wrote = time.perf_counter() - started
        files, size = len(committed_files(uri)), _data_bytes(uri)
        opening_mb = peak_mb(open_archive, uri)
        before = measured(uri)
        started = time.perf_counter()
        compaction_mb = peak_mb(compact, uri)
        compacted = time.perf_counter() - started
        after_files, after_size = len(committed_files(uri)), _data_bytes(uri)
        after = measured(uri)
        cold = measured(uri, cold=True)
        after_mb = peak_mb(open_archive, uri)
        asking_mb = peak_mb(measured, uri)
        gc(uri, older_than_s=0.0)
    if before.keys() != after.keys():
        raise AssertionError("the same questions must be asked twice")
    return [
        Row("rows", units * per_unit, ""),
        Row("units", units, ""),
        Row("writing, rows a second", units * per_unit / wrote, "1/s"),
        Row("compaction, rows a second", units * per_unit / compacted, "1/s"),
        Row("compaction, peak memory", compaction_mb, "MB"),
        Row("opening before compaction, peak memory", opening_mb, "MB"),
        Row("opening after compaction, peak memory", after_mb, "MB"),
        Row("all questions after compaction, peak memory", asking_mb, "MB"),
        Row("the whole process, peak memory", highest_mb(), "MB"),
        Row("files before", files, ""),
        Row("files after", after_files, ""),
        Row("bytes a row before", size / rows, "B"),
        Row("bytes a row after", after_size / rows, "B"),
        *(row for name in before for row in _compared(name, before[name], after[name], cold[name])),
    ]


def write(uri: str, rows: int, per_unit: int, shapes: list[Shape]) -> int:
    """An archive of so many rows over a year of cameras; how many units."""
    writer = ArchiveWriter(uri, RECORD)
    writer.open_run()
    units = max(rows // per_unit, 1)
    for number in range(units):
        made = START + timedelta(days=365 * number / units)
        name = f"s3://cameras/{made:%Y/%m/%d}/cam{number % 7}/{number:07d}.mp4"
        unit = Unit(VideoRef(name, 10**6, f"etag{number}", round(made.timestamp() * 1e6)), 0, per_unit // 2)
        writer.commit_unit(unit, *_tables(unit.video, number, per_unit // 2, shapes))
    return units


def measured(uri: str, cold: bool = False) -> dict[str, float]:
    """Seconds of opening and of each question; every question is asked of pyarrow and DuckDB and must agree.

    If `cold`, nothing of the archive is in the page cache when a question is asked.
    """
    dataset, files, dated = open_archive(uri), committed_files(uri), videos(uri)
    some, some_id = (dated[name][dated.num_rows // 2].as_py() for name in ("video_uri", "video_id"))
    march = _in_march(dated)
    connection = duckdb.connect()
    connection.execute("CREATE TABLE files AS SELECT unnest($files) AS file", {"files": files})
    connection.register("march", march)
    questions: dict[str, Callable[[], int]] = {
        "one video's masks, pyarrow, opened for it": lambda: _one_video(uri, some_id),
        "one video's masks, DuckDB": lambda: _asked(connection, files, ONE_VIDEO.format(some)),
        "seconds where a dog sounds in March, pyarrow": lambda: _dogs(dataset, march),
        "seconds where a dog sounds in March, DuckDB": lambda: _asked(connection, files, DOGS),
        f"top {TOP} by area, pyarrow": lambda: _top(dataset),
        f"top {TOP} by area, DuckDB": lambda: _asked(connection, files, LARGEST),
    }
    found = [question() for question in questions.values()]
    if found[::2] != found[1::2]:
        raise AssertionError(f"pyarrow and DuckDB must agree, got {found}")
    acts = {"opening": lambda: open_archive(uri).count_rows(), **questions}
    seconds = alternately(acts, first=partial(_forget, uri) if cold else nothing)
    connection.close()
    return seconds


def _forget(uri: str) -> None:
    """Put the archive's files out of the page cache, which takes what is written to disk alone."""
    for path in Path(uri).rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


ONE_VIDEO = "SELECT counts FROM t WHERE video_uri = '{}'"
DOGS = """SELECT DISTINCT video_uri, frame_time_us // 1000000 FROM t JOIN march USING (video_id)
          WHERE category = 'dog' AND sounding"""
LARGEST = f"SELECT video_uri, area FROM t WHERE object_id > 0 ORDER BY area DESC LIMIT {TOP}"


def _asked(connection: duckdb.DuckDBPyConnection, files: list[str], question: str) -> int:
    table = f"read_parquet({files!r}, hive_partitioning = false)"
    return connection.sql(f"WITH t AS (SELECT * FROM {table}) {question}").to_arrow_table().num_rows


def _one_video(uri: str, video_id: str) -> int:
    rows, _ = open_videos(uri, None, [video_id])
    return int(rows.to_table(columns=["counts"]).num_rows)


def _dogs(dataset: ds.Dataset, march: pa.Table) -> int:
    wanted = (pc.field("category") == "dog") & pc.field("sounding") & pc.field("video_id").isin(march["video_id"])
    rows = dataset.to_table(columns=["video_id", "frame_time_us"], filter=wanted)
    second = pc.divide(rows["frame_time_us"], 1_000_000)
    seconds = pa.table({"video": rows["video_id"], "second": second})
    return int(seconds.group_by(["video", "second"]).aggregate([]).num_rows)


def _top(dataset: ds.Dataset) -> int:
    rows = dataset.to_table(columns=["video_uri", "area"], filter=pc.field("object_id") > 0)
    return len(pc.select_k_unstable(rows, TOP, [("area", "descending")]))


def _in_march(dated: pa.Table) -> pa.Table:
    first, last = (round(moment.timestamp() * 1e6) for moment in MARCH)
    inside = pc.and_(pc.greater_equal(dated["modified_us"], first), pc.less(dated["modified_us"], last))
    return dated.filter(inside).select(["video_id"])


def _compared(name: str, before: float, after: float, cold: float) -> list[Row]:
    return [
        Row(f"{name}: before", before, "s"),
        Row(f"{name}: after", after, "s"),
        Row(f"{name}: before / after", before / after, "×"),
        Row(f"{name}: cold / warm, after", cold / after, "×"),
    ]


def _data_bytes(uri: str) -> int:
    return sum(Path(path).stat().st_size for path in committed_files(uri))


def _shapes(number: int) -> list[Shape]:
    """Masks with uneven edges, no two alike, or the compression would see it."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[-REACH:REACH, -REACH:REACH]
    turn = np.linspace(-np.pi, np.pi, 1024)
    place = np.digitize(np.arctan2(y, x), turn) - 1
    distance = np.hypot(y, x)
    found = []
    for _ in range(number):
        uneven = sum(random.normal(0, 0.1) * np.sin(k * turn + random.uniform(0, 6)) for k in range(1, 9))
        mask = np.zeros((HEIGHT, WIDTH), bool)
        top, left = random.integers(HEIGHT - 2 * REACH), random.integers(WIDTH - 2 * REACH)
        edge = random.uniform(10, 45) * (1 + uneven)
        mask[top : top + 2 * REACH, left : left + 2 * REACH] = distance < edge[place]
        rle = masks.encode(mask)
        found.append((rle["counts"], masks.area(rle), masks.bbox(rle)))
    return found


def _tables(video: VideoRef, number: int, seconds: int, shapes: list[Shape]) -> tuple[pa.Table, pa.Table]:
    """A video: object 0 and one that has a name, in each second."""
    rows = 2 * seconds
    random = np.random.default_rng(number)
    chosen = [shapes[index] for index in random.integers(len(shapes), size=rows)]
    second = np.tile(np.arange(seconds), 2)
    named = np.arange(rows) >= seconds
    category = CATEGORIES[random.integers(len(CATEGORIES))]
    boxes = np.array([box for _, _, box in chosen], np.int32)
    score = random.random(rows).astype(np.float32)
    same = {"video_id": [video.video_id] * rows, "height": [HEIGHT] * rows, "width": [WIDTH] * rows}
    columns = {
        **same,
        "video_uri": pa.array([video.uri] * rows).dictionary_encode(),
        "frame_index": second * 25,
        "frame_time_us": second * 1_000_000 + 40_000,
        "object_id": named.astype(np.int16),
        "category": pa.array(np.where(named, category, ""), pa.string(), mask=~named),
        "category_score": pa.array(score, pa.float32(), mask=~named),
        "audio_score": pa.array(score, pa.float32(), mask=~named),
        "sounding": random.random(rows) > 0.3,
        "score": score,
        "counts": pa.array([counts for counts, _, _ in chosen], pa.binary()),
        "area": [area for _, area, _ in chosen],
        **{side: boxes[:, place] for place, side in enumerate(("x0", "y0", "w", "h"))},
    }
    frames = {
        "video_id": same["video_id"][:seconds],
        "video_uri": [video.uri] * seconds,
        "frame_index": second[:seconds] * 25,
        "frame_time_us": second[:seconds] * 1_000_000 + 40_000,
        "second": second[:seconds],
        "phase": [0] * seconds,
        "height": same["height"][:seconds],
        "width": same["width"][:seconds],
        "n_instances": [2] * seconds,
        "has_audio": [True] * seconds,
        "flags": [""] * seconds,
    }
    return _typed(columns, ROW_SCHEMA), _typed(frames, FRAME_SCHEMA)


def _typed(columns: dict[str, object], schema: pa.Schema) -> pa.Table:
    arrays = [value if isinstance(value, pa.Array) else pa.array(value) for value in (columns[n] for n in schema.names)]
    return pa.table([array.cast(field.type) for array, field in zip(arrays, schema, strict=True)], schema=schema)


if __name__ == "__main__":
    from benchmarks.__main__ import show

    parser = argparse.ArgumentParser(prog="python -m benchmarks.archive", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="mask rows to generate")
    parser.add_argument("--per-unit", type=int, default=PER_UNIT, help="mask rows of a unit: two a second")
    args = parser.parse_args()
    show("archive", run(args.rows, args.per_unit))
