"""Snapshots: which merged files hold the rows of which units, numbered from 1, never changed.

<archive>/_snapshots/run=<run_key>/<8 digits>.json              the merged files, and the manifest
                                   <8 digits>-<hash>.parquet    the manifest: one row a covered unit

Publishing is a compare-and-swap: number n + 1 is put if it is absent, so of two compactors that both read n one
wins. The manifest is named after its content and put first; the JSON makes it count.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from avs_core import storage
from avs_core.archive.commit import settle
from avs_core.archive.layout import SUFFIX, CommitInfo, FileRecord, StoredRecord, parse
from avs_core.archive.schema import canonical_json, read_table
from avs_core.errors import CorruptArchive, InputError

SNAPSHOTS = "_snapshots"
NO_FILE = -1
"""In a manifest: the unit belongs to a version that another one replaced; its rows are in no merged file."""

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("unit_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("modified_us", pa.int64(), nullable=False),
        pa.field("start_s", pa.int32(), nullable=False),
        pa.field("stop_s", pa.int32(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("of", pa.int32(), nullable=False),
        pa.field("data_rows", pa.int64(), nullable=False),
        pa.field("frame_rows", pa.int64(), nullable=False),
        pa.field("file", pa.int32(), nullable=False),  # index in the snapshot's `files`, or NO_FILE
    ]
)
"""Sorted by file, video_uri, start_s, unit_id: within a file, the order of its videos."""


class MergedFile(StoredRecord):
    """What became of many units: their rows, their frames, their tracks. A video lies in one of them as a whole.

    `in_order`: its videos lie in the order of the manifest; versions before this one did not always see to it.
    """

    data: FileRecord
    frames: FileRecord
    tracks: FileRecord
    in_order: bool = False

    @property
    def bytes(self) -> int:
        """What counts for its size: rows and frames."""
        return self.data.bytes + self.frames.bytes

    @property
    def parts(self) -> tuple[FileRecord, FileRecord, FileRecord]:
        """The three files."""
        return self.data, self.frames, self.tracks


class Snapshot(StoredRecord):
    """The state of a run up to some commits. `parent` is the number before, 0 for none."""

    number: int
    parent: int
    units: int
    manifest: FileRecord
    files: tuple[MergedFile, ...]


@dataclass(frozen=True)
class OpenSnapshot:
    """A snapshot with its manifest (`MANIFEST_SCHEMA`)."""

    snapshot: Snapshot
    manifest: pa.Table


def snapshots_folder(run_key: str) -> str:
    """Where the snapshots of a run lie."""
    return f"{SNAPSHOTS}/run={run_key}"


def snapshot_path(run_key: str, number: int) -> str:
    """The JSON of a snapshot."""
    return f"{snapshots_folder(run_key)}/{number:08d}{SUFFIX}"


def snapshot_ages(archive: str, run_key: str) -> dict[int, int]:
    """The numbers of a run's snapshots, ascending, and when the store got each (µs since 1970); from one listing."""
    folder = storage.join(archive, snapshots_folder(run_key))
    found = {info.uri.rpartition("/")[2]: info.modified_us for info in storage.list_files(folder, recursive=False)}
    names = {name.removesuffix(SUFFIX): age for name, age in found.items() if name.endswith(SUFFIX)}
    return dict(sorted((int(name), age) for name, age in names.items() if name.isdecimal()))


def read_snapshot(archive: str, run_key: str, number: int) -> Snapshot:
    """A snapshot without its manifest. Raises `NotFound`, `CorruptArchive`."""
    uri = storage.join(archive, snapshot_path(run_key, number))
    return parse(Snapshot, storage.read_bytes(uri), uri)


def open_snapshot(archive: str, run_key: str, number: int | None = None) -> OpenSnapshot | None:
    """The newest snapshot of a run (None if there is none), or the one with that number.

    Raises `InputError` for a number that is not there and `CorruptArchive` for a manifest that is damaged.
    """
    numbers = list(snapshot_ages(archive, run_key))
    if number is not None and number not in numbers:
        there = ", ".join(map(str, numbers)) or "none"
        raise InputError(f"a snapshot must exist to be read; run {run_key} of {archive} has {there}, not {number}")
    if not numbers:
        return None
    snapshot = read_snapshot(archive, run_key, number if number is not None else numbers[-1])
    return OpenSnapshot(snapshot, read_manifest(archive, snapshot))


def read_manifest(archive: str, snapshot: Snapshot) -> pa.Table:
    """The covered units. Raises `NotFound`, and `CorruptArchive` when it is not what the snapshot lists."""
    record = snapshot.manifest
    content = storage.read_bytes(uri := storage.join(archive, record.path))
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise CorruptArchive(f"a manifest must hold what its snapshot lists; the SHA-256 of {uri} differs")
    return read_table(content, uri)


def manifest_rows(commits: Sequence[CommitInfo], file: int = NO_FILE) -> pa.Table:
    """Manifest rows of commits, in their order."""
    columns = {
        "unit_id": [commit.unit_id for commit in commits],
        "video_id": [commit.video.video_id for commit in commits],
        "video_uri": [commit.video.uri for commit in commits],
        "fingerprint": [commit.video.fingerprint for commit in commits],
        "size": [commit.video.size for commit in commits],
        "modified_us": [commit.video.modified_us for commit in commits],
        "start_s": [commit.start_s for commit in commits],
        "stop_s": [commit.stop_s for commit in commits],
        "index": [commit.index for commit in commits],
        "of": [commit.of for commit in commits],
        "data_rows": [commit.data.rows for commit in commits],
        "frame_rows": [commit.frames.rows for commit in commits],
        "file": [file] * len(commits),
    }
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def publish(archive: str, run_key: str, parent: int, files: tuple[MergedFile, ...], manifest: pa.Table) -> bool:
    """Put snapshot `parent + 1`; whether it is ours. False: another writer has made that number, with other content."""
    number = parent + 1
    sink = pa.BufferOutputStream()
    pq.write_table(manifest.combine_chunks(), sink, compression="zstd", compression_level=3)
    content = bytes(sink.getvalue())
    sha256 = hashlib.sha256(content).hexdigest()
    path = f"{snapshots_folder(run_key)}/{number:08d}-{sha256[:16]}.parquet"
    # Written again where it is there already: gc goes by the age of what nothing lists yet.
    storage.write_bytes(storage.join(archive, path), content)
    snapshot = Snapshot(
        number=number,
        parent=parent,
        units=manifest.num_rows,
        manifest=FileRecord(path=path, sha256=sha256, bytes=len(content), rows=manifest.num_rows),
        files=files,
    )
    uri = storage.join(archive, snapshot_path(run_key, number))
    return settle(uri, canonical_json(snapshot.model_dump(mode="json")))
