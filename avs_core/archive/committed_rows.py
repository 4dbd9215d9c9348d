"""The rows of one committed unit, wherever they are by now: in its own file, or in the merged one that replaced it."""

import hashlib
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.compute as pc

from avs_core import storage
from avs_core.archive.layout import CommitInfo, FileRecord
from avs_core.archive.merge import MergedReader
from avs_core.archive.schema import read_table
from avs_core.archive.snapshots import NO_FILE, open_snapshot
from avs_core.archive.state import RunState
from avs_core.errors import CorruptArchive, NotFound


class CommittedRows:
    """Reads units of one run; what is read of merged files is kept, for the other units of the same video."""

    def __init__(self, archive: str, run_key: str) -> None:
        self._archive = archive
        self._run_key = run_key
        self._merged: dict[str, tuple[pa.Table, pa.Table]] = {}

    def of(self, commit: CommitInfo) -> pa.Table:
        """The rows (`ROW_SCHEMA`, but for dictionaries) of a unit. Raises `NotFound`, `CorruptArchive`."""
        try:
            return read_listed(self._archive, commit.data)
        except NotFound:
            rows, frames = self._video(commit)
        inside = pc.and_(pc.greater_equal(frames["second"], commit.start_s), pc.less(frames["second"], commit.stop_s))
        times = frames.filter(inside)["frame_time_us"]
        return rows.filter(pc.is_in(rows["frame_time_us"], times.combine_chunks()))

    def _video(self, commit: CommitInfo) -> tuple[pa.Table, pa.Table]:
        """All rows and frames of the unit's video in a merged file."""
        video_id = commit.video.video_id
        if video_id not in self._merged:
            state = RunState(self._archive, self._run_key, open_snapshot(self._archive, self._run_key))
            if not _holds(state, commit.unit_id):
                raise NotFound(f"the rows of {commit.unit_id} are neither in {commit.data.path} nor in a merged file")
            span = state.spans([video_id])[video_id]
            file = state.files[span.file]
            with ExitStack() as stack:
                rows = MergedReader(self._archive, file.data, stack).rows_of(video_id, *span.data)
                frames = MergedReader(self._archive, file.frames, stack).rows_of(video_id, *span.frames)
                self._merged[video_id] = pa.concat_tables(rows), pa.concat_tables(frames)
        return self._merged[video_id]


def read_listed(archive: str, file: FileRecord) -> pa.Table:
    """A Parquet file that a record lists. Raises `NotFound`, and `CorruptArchive` when it holds something else."""
    content = storage.read_bytes(uri := storage.join(archive, file.path))
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise CorruptArchive(f"a file must have the hash that its record says; {file.path} has another")
    return read_table(content, uri)


def _holds(state: RunState, unit_id: str) -> bool:
    """Whether a merged file has the unit's rows: not those of a version that was replaced."""
    if state.opened is None:
        return False
    manifest = state.opened.manifest
    row = manifest.filter(pc.equal(manifest["unit_id"], unit_id))["file"].to_pylist()
    return bool(row) and row[0] != NO_FILE
