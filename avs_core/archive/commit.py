"""Writing an archive: data first, under names that depend on the unit alone; then one conditional commit.

A unit that is staged is written in the same way, into a folder that no reader looks into: see `staging`.

A unit exists once its commit does. A writer that dies in between leaves files that no commit lists; the next one
writes the same bytes to the same names. Nothing that is written holds a clock, a host or a random number.
"""

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from avs_core import storage
from avs_core.archive.layout import (
    CommitInfo,
    DeadLetter,
    FileRecord,
    Software,
    VideoRecord,
    commits_folder,
    dead_folder,
    parse,
    run_path,
    staged_folder,
    table_path,
    unit_path,
)
from avs_core.archive.schema import (
    FRAME_SCHEMA,
    ROW_SCHEMA,
    SIGHTING_SCHEMA,
    RunRecord,
    canonical_json,
    run_key,
    to_parquet,
)
from avs_core.clip import Unit
from avs_core.errors import AlreadyExists, CommitConflict, ConfigError, NotFound, OutcomeUnknown, UnsafeStore

SHORT_HASH = 8


@dataclass(frozen=True)
class _Place:
    """Where a unit's record and its two tables go, relative to the archive; the schema of what was found."""

    record: str
    data: str
    frames: str
    schema: pa.Schema


class ArchiveWriter:
    """Writes the units of one run. Any number of them may write to one archive, in any process.

    `software` goes into dead letters alone: what is right does not depend on it.
    """

    def __init__(self, uri: str, record: RunRecord, software: Software | None = None) -> None:
        self.uri = storage.normalise(uri)
        self.record = record
        self.software = software or Software()
        self.run_key = run_key(record)

    def open_run(self) -> None:
        """Put the run's record there. Raises `CommitConflict` if another one bears its key."""
        uri = storage.join(self.uri, run_path(self.run_key))
        if not settle(uri, self._record_bytes()):
            raise CommitConflict(f"a run key must stand for one record; {uri} holds another than {self.record}")

    def check_exclusive(self) -> None:
        """Raises `UnsafeStore` where a second writer can take a key that the first one has. Needs `open_run`.

        It puts the run's record once more: a store that ignores the condition overwrites it with the same bytes.
        """
        uri = storage.join(self.uri, run_path(self.run_key))
        try:
            storage.put_if_absent(uri, self._record_bytes())
        except AlreadyExists:
            return
        raise UnsafeStore(
            f"a store of archives must refuse to write a key that is taken (If-None-Match: *); that of {self.uri} "
            f"overwrote it, so two writers could lose masks: use another store (`avs doctor --archive` tries one)"
        )

    def commit_unit(
        self,
        unit: Unit,
        instances: pa.Table,
        frames: pa.Table,
        flags: tuple[str, ...] = (),
        shown: int | None = None,
    ) -> CommitInfo:
        """Write a unit's tables (`ROW_SCHEMA`, `FRAME_SCHEMA`) and commit them; doing it again changes nothing.

        Raises `CommitConflict` when the unit is committed with other content, and `StorageError`.
        """
        place = _Place(
            record=unit_path(commits_folder(self.run_key), unit.unit_id),
            data=table_path("data", self.run_key, unit),
            frames=table_path("frames", self.run_key, unit),
            schema=ROW_SCHEMA,
        )
        return self._record(unit, (instances, frames), flags, shown, place)

    def stage_unit(
        self,
        unit: Unit,
        sightings: pa.Table,
        frames: pa.Table,
        flags: tuple[str, ...] = (),
        shown: int | None = None,
    ) -> CommitInfo:
        """Put what a unit saw (`SIGHTING_SCHEMA`, `FRAME_SCHEMA`) where the video's other units find it.

        Raises as `commit_unit` does.
        """
        folder = staged_folder(self.run_key, unit.video.video_key)
        place = _Place(
            record=unit_path(folder, unit.unit_id),
            data=f"{folder}/{unit.unit_id}.data.parquet",
            frames=f"{folder}/{unit.unit_id}.frames.parquet",
            schema=SIGHTING_SCHEMA,
        )
        return self._record(unit, (sightings, frames), flags, shown, place)

    def _record(
        self, unit: Unit, tables: tuple[pa.Table, pa.Table], flags: tuple[str, ...], shown: int | None, place: _Place
    ) -> CommitInfo:
        """The tables, then the record that lists them."""
        found, frames = tables
        data, looked_at = self._parquet(unit, found, place.schema), self._parquet(unit, frames, FRAME_SCHEMA)
        uri = storage.join(self.uri, place.record)
        earlier = _read_if_there(uri)
        if earlier is not None:
            return _same_content(parse(CommitInfo, earlier, uri), data, looked_at, uri)
        commit = CommitInfo(
            unit_id=unit.unit_id,
            video=VideoRecord.of(unit.video),
            start_s=unit.start_s,
            stop_s=unit.stop_s,
            index=unit.index,
            of=unit.of,
            data=self._put_table(place.data, data, found.num_rows),
            frames=self._put_table(place.frames, looked_at, frames.num_rows),
            flags=flags,
            shown=shown,
        )
        if settle(uri, canonical_json(commit.model_dump(mode="json"))):
            return commit
        return _same_content(parse(CommitInfo, storage.read_bytes(uri), uri), data, looked_at, uri)

    def dead_letter(
        self,
        unit: Unit,
        error_class: str,
        message: str,
        stage: str,
        attempts: int = 1,
        flags: tuple[str, ...] = (),
    ) -> None:
        """Record why a unit can't be done; a unit that is committed gets no letter.

        The first letter stays, unless it is in doubt: another decoder wrote it, or the store had refused the file.
        """
        if storage.is_file(storage.join(self.uri, unit_path(commits_folder(self.run_key), unit.unit_id))):
            return
        letter = DeadLetter(
            unit_id=unit.unit_id,
            video=VideoRecord.of(unit.video),
            start_s=unit.start_s,
            stop_s=unit.stop_s,
            index=unit.index,
            of=unit.of,
            error_class=error_class,
            stage=stage,
            message=message,
            attempts=attempts,
            flags=flags,
            software=self.software,
        )
        uri = storage.join(self.uri, unit_path(dead_folder(self.run_key), unit.unit_id))
        content = canonical_json(letter.model_dump(mode="json"))
        if settle(uri, content):
            return
        earlier = _read_if_there(uri)
        if earlier is None or parse(DeadLetter, earlier, uri).doubtful(self.software.decoder):
            storage.write_bytes(uri, content)

    def _record_bytes(self) -> bytes:
        return canonical_json(self.record.model_dump(mode="json"))

    def _parquet(self, unit: Unit, table: pa.Table, schema: pa.Schema) -> bytes:
        if not table.schema.equals(schema):
            raise ConfigError(f"a committed table must have the archive's schema; unit {unit.unit_id}: {table.schema}")
        metadata = {
            "avs.schema_version": str(self.record.schema_version),
            "avs.run_key": self.run_key,
            "avs.unit_id": unit.unit_id,
        }
        return to_parquet(table, metadata)

    def _put_table(self, path: str, content: bytes, rows: int) -> FileRecord:
        """Under that name; if it holds other bytes (of a writer that has not committed, or died), beside it.

        Replacing them could pull the file from under the other's commit.
        """
        sha256 = _sha256(content)
        if not settle(storage.join(self.uri, path), content, renew=True):
            path = f"{path.removesuffix('.parquet')}-{sha256[:SHORT_HASH]}.parquet"
            if not settle(storage.join(self.uri, path), content, renew=True):
                raise CommitConflict(f"a file named after its hash must hold those bytes; {path} does not")
        return FileRecord(path=path, sha256=sha256, bytes=len(content), rows=rows)


def settle(uri: str, data: bytes, renew: bool = False) -> bool:
    """Put the bytes there unless the key is taken; whether it holds exactly these bytes afterwards.

    `renew` writes them once more if they were there already: what a dead writer left must look new to `gc`, which
    removes what is old and listed nowhere, before a commit lists it.
    """
    try:
        storage.put_if_absent(uri, data)
    except AlreadyExists:
        same = storage.read_bytes(uri) == data
        if same and renew:
            storage.write_bytes(uri, data)
        return same
    except OutcomeUnknown:
        there = _read_if_there(uri)
        if there is None:
            raise
        return there == data
    return True


def _read_if_there(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri)
    except NotFound:
        return None


def _same_content(earlier: CommitInfo, data: bytes, frames: bytes, uri: str) -> CommitInfo:
    """The commit that is there, if it lists the same content."""
    if (earlier.data.sha256, earlier.frames.sha256) != (_sha256(data), _sha256(frames)):
        raise CommitConflict(
            f"a unit must be committed once; {uri} lists other content than this writer made of it. Two machines "
            f"that compute differently under one run key, a GPU and a CPU say: keep a run to one kind of device."
        )
    return earlier


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
