"""Many small files into few: what a video has, in order, and the files that it goes to.

Within a merged file rows are sorted by video, object and frame, frames by video, second and phase; row groups hold
`ROW_GROUP` rows each, but the last. Names come from the content. At any time the memory holds one merged file, the
rows of one video, the tables of `AHEAD` bytes of unit files (larger than those) and a row group of each merged file
that is read.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, groupby, pairwise, product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from avs_core import storage
from avs_core.archive.layout import CommitInfo, FileRecord
from avs_core.archive.schema import (
    FRAME_SCHEMA,
    ROW_GROUP,
    ROW_SCHEMA,
    SCHEMA_VERSION,
    TRACK_SCHEMA,
    parquet_writer,
    read_table,
)
from avs_core.archive.snapshots import MergedFile
from avs_core.archive.state import READERS, RunState, Span
from avs_core.archive.tracks import tracks_of
from avs_core.errors import CorruptArchive

AHEAD = 64_000_000
"""Bytes of unit files that are read at once."""
HASH_BLOCK = 4_000_000
NAME_HASH = 32
DATA_ORDER = ["object_id", "frame_time_us"]
FRAME_ORDER = ["second", "phase"]


@dataclass(frozen=True)
class VideoParts:
    """What a video has: its place in a merged file, and the commits whose files come to it, by start."""

    uri: str
    video_id: str
    span: Span | None
    commits: tuple[CommitInfo, ...]

    @property
    def bytes(self) -> int:
        """Of its unit files."""
        return sum(commit.data.bytes + commit.frames.bytes for commit in self.commits)


@dataclass(frozen=True)
class VideoTables:
    """All that is known of a video; `rows` and `frames` have their archive's schema, but `video_uri` as plain text."""

    video: VideoParts
    rows: pa.Table
    frames: pa.Table


def pending_videos(state: RunState) -> list[VideoParts]:
    """The videos whose unit files are shown, by URI."""
    return by_video(state.pending, state.spans(state.grown))


def by_video(commits: Iterable[CommitInfo], spans: dict[str, Span]) -> list[VideoParts]:
    """Commits, sorted by URI and start, put together by video, each with its place in a merged file if it has one."""
    return [
        VideoParts(uri, video_id, spans.get(video_id), tuple(of_video))
        for (uri, video_id), of_video in groupby(commits, lambda commit: (commit.video.uri, commit.video.video_id))
    ]


class MergedReader:
    """Rows of a merged file by their place; it keeps the row group that it read last, and its file on the stack.

    Raises `CorruptArchive` for a file that is not what its snapshot lists.
    """

    def __init__(self, archive: str, record: FileRecord, stack: ExitStack) -> None:
        uri = storage.join(archive, record.path)
        if sha256_of(uri) != record.sha256:  # what is merged again must be what was merged
            raise CorruptArchive(f"a merged file must hold what its snapshot lists; the SHA-256 of {uri} differs")
        self._uri = uri
        self._file = pq.ParquetFile(stack.enter_context(storage.open_read(uri)))
        self._number = -1
        self._group = pa.table({})

    def rows_of(self, video_id: str, start: int, stop: int) -> list[pa.Table]:
        """The rows of a video, which are [start, stop) by the manifest; where they aren't the file knows better."""
        rows = self._rows(start, stop)
        if all(pc.all(pc.equal(some["video_id"], video_id), min_count=0).as_py() for some in rows):
            return rows
        first, end = places(self._file).get(video_id, (0, 0))
        if end - first != stop - start:
            raise CorruptArchive(
                f"a merged file must hold the rows that its snapshot's manifest counts; of {video_id} {self._uri} has "
                f"{end - first}, not {stop - start}: nothing was changed; avs verify names all such files"
            )
        return self._rows(first, end)

    def _rows(self, start: int, stop: int) -> list[pa.Table]:
        found = []
        for number in range(start // ROW_GROUP, -(-stop // ROW_GROUP)):
            if number != self._number:
                self._number, self._group = number, plain(self._file.read_row_group(number))
            first = number * ROW_GROUP
            found.append(self._group.slice(max(start - first, 0), min(stop - first, ROW_GROUP) - max(start - first, 0)))
        return found or [plain(self._file.schema_arrow.empty_table())]


def places(file: pq.ParquetFile) -> dict[str, tuple[int, int]]:
    """The rows [start, stop) of each video in a merged file, in their order, by its own word."""
    ids = file.read(columns=["video_id"])["video_id"].combine_chunks()
    codes = ids.dictionary_encode().indices.to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist()] if len(codes) else []
    return {ids[start].as_py(): (start, stop) for start, stop in pairwise([*starts, len(codes)])}


def lies_as_said(archive: str, record: FileRecord, said: Mapping[str, tuple[int, int]]) -> bool:
    """Whether each video has its rows in a merged file where the manifest says; videos without rows are anywhere."""
    with storage.open_read(storage.join(archive, record.path)) as stream:
        found = places(pq.ParquetFile(stream))
    return found == {video_id: place for video_id, place in said.items() if place[1] > place[0]}


def read_videos(archive: str, files: tuple[MergedFile, ...], videos: Iterable[VideoParts]) -> Iterator[VideoTables]:
    """The tables of each video in turn. Raises `CorruptArchive` for a file that is not what its commit lists."""
    with ExitStack() as stack:
        readers: dict[tuple[int, str], MergedReader] = {}
        for some in _together(videos):
            contents = iter(_contents(archive, some))
            for video in some:
                tables: dict[str, list[pa.Table]] = {"data": [], "frames": []}
                for span, (kind, found) in product([video.span] if video.span else [], tables.items()):
                    key = (span.file, kind)
                    if key not in readers:
                        readers[key] = MergedReader(archive, getattr(files[span.file], kind), stack)
                    found.extend(readers[key].rows_of(video.video_id, *getattr(span, kind)))
                for _ in video.commits:
                    for found in tables.values():
                        found.append(next(contents))
                yield VideoTables(video, _joined(tables["data"], DATA_ORDER), _joined(tables["frames"], FRAME_ORDER))


def write_merged(
    archive: str, run_key: str, videos: Iterable[VideoTables], target: int
) -> Iterator[tuple[MergedFile, list[VideoParts]]]:
    """Merged files of `target` bytes (rows and frames) each but the last, with the videos in them.

    A file ends with a video, and may be longer by its rows and one row group.
    """
    waiting = iter(videos)
    for first in waiting:
        with _Sink(archive, run_key) as sink:
            for tables in chain([first], waiting):
                sink.add(tables)
                if sink.written >= target:
                    break
            yield sink.finish()


def sha256_of(uri: str) -> str:
    """The hash of a file, read in blocks. Raises `NotFound`."""
    digest = hashlib.sha256()
    with storage.open_read(uri) as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def plain(table: pa.Table) -> pa.Table:
    """The table with `video_uri` as plain text, so that tables of several files are one."""
    index = table.schema.get_field_index("video_uri")
    field = pa.field("video_uri", pa.string(), nullable=False)
    return table.set_column(index, field, table["video_uri"].cast(pa.string()))


def in_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with `video_uri` as the schema has it: its dictionary holds what these rows use, in their order."""
    index = schema.get_field_index("video_uri")
    column = table["video_uri"].combine_chunks()
    if pa.types.is_dictionary(schema.field(index).type):
        column = column.dictionary_encode()
    return table.set_column(index, schema.field(index), column).combine_chunks().cast(schema)


class _Sink:
    """One merged file in the making: its tables on the local disk, its tracks in memory."""

    def __init__(self, archive: str, run_key: str) -> None:
        self._archive, self._run_key = archive, run_key
        self._data = _Table(ROW_SCHEMA, run_key)
        self._frames = _Table(FRAME_SCHEMA, run_key)
        self._tracks = _Table(TRACK_SCHEMA, run_key)
        self._untracked: list[pa.Table] = []
        self._untracked_rows = 0
        self._videos: list[VideoParts] = []

    def __enter__(self) -> "_Sink":
        return self

    def __exit__(self, *_: object) -> None:
        for table in (self._data, self._frames, self._tracks):
            table.close()

    @property
    def written(self) -> int:
        """Bytes of the whole row groups so far."""
        return self._data.written + self._frames.written

    def add(self, tables: VideoTables) -> None:
        """A whole video."""
        self._data.add(tables.rows)
        self._frames.add(tables.frames)
        self._videos.append(tables.video)
        self._untracked.append(tables.rows)
        self._untracked_rows += tables.rows.num_rows
        if self._untracked_rows >= ROW_GROUP:
            self._track()

    def finish(self) -> tuple[MergedFile, list[VideoParts]]:
        """Put the files there."""
        self._track()
        merged = MergedFile(
            data=self._put("data", self._data),
            frames=self._put("frames", self._frames),
            tracks=self._put("tracks", self._tracks),
            in_order=True,  # as far as the videos came so
        )
        return merged, self._videos

    def _track(self) -> None:
        if self._untracked:
            self._tracks.add(tracks_of(pa.concat_tables(self._untracked)))
            self._untracked, self._untracked_rows = [], 0

    def _put(self, kind: str, table: "_Table") -> FileRecord:
        content = table.content()
        sha256 = hashlib.sha256(content).hexdigest()
        path = f"{kind}/run={self._run_key}/shard=merged/{sha256[:NAME_HASH]}.parquet"
        # A plain write: the name stands for the content. What is there already becomes new, so that gc leaves it.
        storage.write_bytes(storage.join(self._archive, path), content)
        return FileRecord(path=path, sha256=sha256, bytes=len(content), rows=table.rows)


class _Table:
    """A Parquet file that grows by whole row groups in a temporary file."""

    def __init__(self, schema: pa.Schema, run_key: str) -> None:
        self.rows = 0
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives until `close`
        metadata = {"avs.schema_version": str(SCHEMA_VERSION), "avs.run_key": run_key}
        self._writer = parquet_writer(self._file, schema, metadata)

    @property
    def written(self) -> int:
        return self._file.tell()

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self.rows += table.num_rows
        self._waiting_rows += table.num_rows
        if self._waiting_rows >= ROW_GROUP:
            joined = pa.concat_tables(self._waiting)
            whole = joined.num_rows - joined.num_rows % ROW_GROUP
            for start in range(0, whole, ROW_GROUP):
                self._write(joined.slice(start, ROW_GROUP))
            self._waiting, self._waiting_rows = [joined.slice(whole)], joined.num_rows - whole

    def content(self) -> bytes:
        rest = pa.concat_tables(self._waiting) if self._waiting else None
        if rest is not None and rest.num_rows:
            self._write(rest)
        self._writer.close()
        self._file.seek(0)
        return self._file.read()

    def close(self) -> None:
        self._writer.close()
        self._file.close()

    def _write(self, rows: pa.Table) -> None:
        self._writer.write_table(in_schema(rows, self._schema), row_group_size=ROW_GROUP)


def _together(videos: Iterable[VideoParts]) -> Iterator[list[VideoParts]]:
    """Videos in a row whose unit files have `AHEAD` bytes together, or one that has more."""
    some: list[VideoParts] = []
    size = 0
    for video in videos:
        if some and size + video.bytes > AHEAD:
            yield some
            some, size = [], 0
        some.append(video)
        size += video.bytes
    if some:
        yield some


def _contents(archive: str, videos: list[VideoParts]) -> list[pa.Table]:
    """The tables of each commit of each video: data, frames, data, frames, …"""
    records = [file for video in videos for commit in video.commits for file in (commit.data, commit.frames)]
    return list(storage.in_threads(lambda record: _unit_table(archive, record), records, READERS))


def _unit_table(archive: str, record: FileRecord) -> pa.Table:
    content = storage.read_bytes(uri := storage.join(archive, record.path))
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise CorruptArchive(f"a committed file must hold what its commit lists; the SHA-256 of {uri} differs")
    return plain(read_table(content, uri))


def _joined(tables: list[pa.Table], order: list[str]) -> pa.Table:
    """The tables of one video as one, sorted; rows that are equal in that stay in the order of their units."""
    joined = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    if len(tables) < 2:
        return joined
    number = pa.array(np.arange(joined.num_rows))
    keys = [(name, "ascending") for name in (*order, "_number")]
    return joined.append_column("_number", number).sort_by(keys).drop_columns("_number")
