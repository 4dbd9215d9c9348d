"""The units of a cut video wait for each other: then their objects get numbers, and the video is published.

A unit knows its own seconds alone, and any worker may have it at any time; which object is which through the whole
video, and which frame it is from the file's first one on, can be told once all units are there. Whoever brings the last
one numbers them in order and commits each. It may die at any point: what is committed is followed, what is staged is
numbered, so the next one comes to the same rows.

<archive>/_staged/run=<run_key>/<video key>/<unit_id>.data.parquet     what the unit saw
                                            <unit_id>.frames.parquet   what it looked at
                                            <unit_id>.json             the unit is staged once this is there
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from avs_core import storage
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.committed_rows import CommittedRows, read_listed
from avs_core.archive.layout import (
    SUFFIX,
    CommitInfo,
    DeadLetter,
    Record,
    commits_folder,
    dead_folder,
    find_record,
    staged_folder,
    unit_ids,
    unit_path,
)
from avs_core.archive.ledger import Ledger
from avs_core.archive.numbering import Numbering
from avs_core.archive.schema import within_video
from avs_core.clip import Unit, video_key_of
from avs_core.errors import CommitConflict, CorruptArchive, NotApplied, NotFound


def as_begun(archive: str, run_key: str, units: Sequence[Unit], ledger: Ledger) -> Sequence[Unit]:
    """The units of a video, cut as it was begun: an id tells how many there are, and not where they meet.

    With another length of units there may be as many: then the video is ended in the units that it has some of.
    """
    sets = (ledger.committed, ledger.staged, ledger.dead)
    known = [unit for unit in units if any(unit.unit_id in ids for ids in sets)]
    if not known or len(known) == len(units):
        return units
    record = _any_record(archive, run_key, known[0])
    if record is None:
        return units
    # The last one may be shorter than the others.
    last = known[0].index == known[0].of - 1
    length = record.start_s // (known[0].of - 1) if last else record.stop_s - record.start_s
    seconds = units[-1].stop_s
    if length < 1 or -(-seconds // length) != len(units):
        return units
    starts = range(0, seconds, length)
    return [
        replace(unit, start_s=start, stop_s=min(start + length, seconds))
        for unit, start in zip(units, starts, strict=True)
    ]


def _any_record(archive: str, run_key: str, unit: Unit) -> CommitInfo | DeadLetter | None:
    """What is written of a unit: its commit, what is staged of it, or its dead letter."""
    for folder in (commits_folder(run_key), staged_folder(run_key, unit.video.video_key)):
        if found := find_record(CommitInfo, storage.join(archive, unit_path(folder, unit.unit_id))):
            return found
    return find_record(DeadLetter, storage.join(archive, unit_path(dead_folder(run_key), unit.unit_id)))


class VideoWriter:
    """Brings the units of videos into an archive, in any order, from any number of processes."""

    def __init__(self, writer: ArchiveWriter) -> None:
        self._writer = writer

    def finish(
        self,
        unit: Unit,
        sightings: pa.Table,
        frames: pa.Table,
        flags: tuple[str, ...] = (),
        shown: int | None = None,
    ) -> None:
        """A unit is done (`SIGHTING_SCHEMA`, `FRAME_SCHEMA`); doing it again changes nothing.

        `flags` and `shown` are those of its clip.

        Raises `CommitConflict` when it was done with other content, and `StorageError`.
        """
        if unit.of == 1:
            self._writer.commit_unit(unit, Numbering().number(sightings), frames, flags, shown)
        elif committed := self._record(commits_folder(self._writer.run_key), unit):
            self._same_content(committed, sightings)
        else:
            try:
                self._writer.stage_unit(unit, sightings, frames, flags, shown)
            except CommitConflict:  # it is staged already, and may be the last that its video waits for
                self.publish(unit)
                raise
            self.publish(unit)

    def give_up(self, unit: Unit, error_class: str, message: str, stage: str, attempts: int = 1) -> None:
        """A unit can't be done: the others of its video wait for it only if the store may yet show its file."""
        self._writer.dead_letter(unit, error_class, message, stage, attempts)
        if unit.of > 1:
            self.publish(unit)

    def publish(self, unit: Unit) -> bool:
        """Commit the units of its video that are staged, if all of them are staged, committed or dead; whether so."""
        folder = staged_folder(self._writer.run_key, unit.video.video_key)
        staged = unit_ids(self._writer.uri, folder)
        units = [replace(unit, start_s=i, stop_s=i + 1, index=i) for i in range(unit.of)]  # for their names alone
        if not all(one.unit_id in staged or self._settled(one) for one in units):
            return False
        # Last to first: another publisher commits first to last, so no unit is seen without those before it.
        committed = [self._record(commits_folder(self._writer.run_key), one) for one in reversed(units)][::-1]
        waiting = [None if done else self._waiting(one, staged) for one, done in zip(units, committed, strict=True)]
        _check_that_they_meet([done or staged for done, staged in zip(committed, waiting, strict=True)])
        publication = _Publication(self._writer, committed, waiting)
        for one, done, record in zip(units, committed, waiting, strict=True):
            if done is not None:
                publication.follow(done)
            elif record is not None:
                self._commit(one, record, publication)
            else:
                publication.pass_over()
        self._clear(folder, {one.unit_id for one in units})
        return True

    def sweep(self, ledger: Ledger) -> None:
        """Remove what was staged of units that are committed: its publisher died before it had cleared up."""
        left = ledger.staged & ledger.committed
        for key in sorted({video_key_of(unit_id) for unit_id in left}):
            self._clear(staged_folder(self._writer.run_key, key), left)

    def _waiting(self, unit: Unit, staged: set[str] | frozenset[str]) -> CommitInfo | None:
        """The record of a staged unit, or of the commit that another publisher made of it meanwhile; None: it is dead.

        Raises `NotApplied` where it is gone, or damaged and removed: it has to be done again.
        """
        if unit.unit_id not in staged:
            return None
        with self._damage_removed(unit):
            record = self._record(staged_folder(self._writer.run_key, unit.video.video_key), unit)
        return record or self._committed_meanwhile(unit)

    def _committed_meanwhile(self, unit: Unit) -> CommitInfo:
        record = self._record(commits_folder(self._writer.run_key), unit)
        if record is None:
            raise NotApplied(
                f"a staged unit must stay until it is committed; {unit.unit_id} is gone: run the job again"
            )
        return record

    def _commit(self, unit: Unit, record: CommitInfo, publication: "_Publication") -> None:
        """Commit a staged unit, unless another publisher did meanwhile and has cleared up. Raises as `_waiting`."""
        try:
            with self._damage_removed(unit):
                tables = [read_listed(self._writer.uri, file) for file in (record.data, record.frames)]
        except NotFound:
            publication.follow(self._committed_meanwhile(unit))
            return
        if "look" in tables[0].schema.names:
            publication.commit(unit, record, *tables)
        else:  # `record` is the commit that another publisher made
            publication.follow(record)

    @contextmanager
    def _damage_removed(self, unit: Unit) -> Iterator[None]:
        """Raises `NotApplied` for a damaged staged unit, after removing it."""
        folder = staged_folder(self._writer.run_key, unit.video.video_key)
        try:
            yield
        except CorruptArchive as damage:
            storage.delete(storage.join(self._writer.uri, unit_path(folder, unit.unit_id)))
            self._clear(folder, {unit.unit_id})
            raise NotApplied(
                f"a staged unit must be as it was written: {damage}; it is removed, run the job again"
            ) from damage

    def _settled(self, unit: Unit) -> bool:
        """Committed, or dead of what will last: what comes late would get other numbers than what comes in time."""
        committed = unit_path(commits_folder(self._writer.run_key), unit.unit_id)
        if storage.is_file(storage.join(self._writer.uri, committed)):
            return True
        letter = self._stored(DeadLetter, dead_folder(self._writer.run_key), unit)
        return letter is not None and not letter.by_store

    def _record(self, folder: str, unit: Unit) -> CommitInfo | None:
        return self._stored(CommitInfo, folder, unit)

    def _stored(self, kind: type[Record], folder: str, unit: Unit) -> Record | None:
        return find_record(kind, storage.join(self._writer.uri, unit_path(folder, unit.unit_id)))

    def _same_content(self, commit: CommitInfo, sightings: pa.Table) -> None:
        """But for the numbers of objects, which no unit knows. Once its file was merged and removed, nobody asks."""
        try:
            committed = read_listed(self._writer.uri, commit.data)
        except NotFound:
            return
        there, new = (sorted(table["counts"].to_pylist()) for table in (committed, sightings))
        if there != new:
            raise CommitConflict(f"a unit must be done once; {commit.unit_id} is committed with other masks")

    def _clear(self, folder: str, ids: set[str] | frozenset[str]) -> None:
        """Remove what the units have in a folder, their records last: what is listed is there."""
        uris = [found.uri for found in storage.list_files(storage.join(self._writer.uri, folder), False)]
        for uri in sorted(uris, key=lambda uri: uri.endswith(SUFFIX)):
            if uri.rpartition("/")[2].partition(".")[0] in ids:
                storage.delete(uri)


class _Publication:
    """One way through the units of a video, in the order of time."""

    def __init__(
        self, writer: ArchiveWriter, committed: list[CommitInfo | None], waiting: list[CommitInfo | None]
    ) -> None:
        """The records of its units, where there are any; at most one of each unit."""
        self._writer = writer
        self._rows = CommittedRows(writer.uri, writer.run_key)
        self._numbering = Numbering(max((_highest(self._rows.of(record)) for record in committed if record), default=0))
        self._flags = tuple(sorted({flag for record in committed + waiting if record for flag in record.flags}))
        self._before: int | None = 0

    def follow(self, record: CommitInfo) -> None:
        """A unit that is committed."""
        self._numbering.follow(self._rows.of(record))
        self._count(record.shown)

    def commit(self, unit: Unit, record: CommitInfo, sightings: pa.Table, frames: pa.Table) -> None:
        """A unit that is staged; `unit` names it."""
        before = None if record.shown is None else self._before
        whole = replace(unit, start_s=record.start_s, stop_s=record.stop_s)
        rows = within_video(self._numbering.number(sightings), before, self._flags)
        self._writer.commit_unit(whole, rows, within_video(frames, before, self._flags), self._flags, record.shown)
        self._count(record.shown)

    def pass_over(self) -> None:
        """A unit that is dead: nobody knows how many frames it has."""
        self._count(None)

    def _count(self, shown: int | None) -> None:
        self._before = None if self._before is None or shown is None else self._before + shown


def _check_that_they_meet(records: list[CommitInfo | None]) -> None:
    """Raise `CommitConflict` where units of a video overlap or leave a gap: they are of two cuts. None: a dead one."""
    for one, following in pairwise(records):
        if one is not None and following is not None and one.stop_s != following.start_s:
            raise CommitConflict(
                f"units of a video must meet; {one.unit_id} ends at {one.stop_s} s, the next begins at "
                f"{following.start_s} s: take a --unit-s that cuts it into another number of units"
            )


def _highest(rows: pa.Table) -> int:
    """The highest number of an object among them."""
    return pc.max(rows["object_id"]).as_py() or 0
