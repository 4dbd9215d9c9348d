"""The stages of the main job as plain callables: one row in, one row out, no Ray.

A stage loads what it needs when it is built and maps a row when it is called. It is deterministic and may be
repeated: what it writes goes under names that depend on the row alone. A row that is dead (the file is at fault)
or failed (the store is, for now) passes through the later stages untouched; `commit` records the dead. So does a row
that is whole: all units of its video are there, and whoever brought the last one died before they were published. A
row becomes a suspect only under a witness (`watch`), and passes through to the driver, which lets it run alone.

    probe    {video, earlier}          → {units}, or that it is as it was, or a fault
    decode   {unit}                    → + clip
    segment  {unit, clip}              → + rows, frames    (clip dropped)
    commit   {unit, rows, frames}      → an outcome of a few numbers

`segment` is in `model_stage`: the other stages run in processes that need no torch.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from avs_core import storage
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.layout import Software
from avs_core.archive.schema import RunRecord
from avs_core.archive.staging import VideoWriter
from avs_core.archive.touched import content_hash
from avs_core.clip import Unit, VideoRef
from avs_core.errors import (
    CommitConflict,
    CorruptArchive,
    DecoderUnavailable,
    InputError,
    MediaError,
    NotApplied,
    NotFound,
    OutcomeUnknown,
    StorageError,
    UnreadableMedia,
)
from avs_core.media.config import DecodeConfig, DecodeLimits
from avs_core.media.decode import GuardedDecoder
from avs_core.pipelines import wire
from avs_core.pipelines.units import cut, unprobed

Row = dict[str, Any]
T = TypeVar("T")
Stop = Callable[[], bool]
"""Whether the job is to stop: a stage then lets rows through that it has not begun."""

OK, DEAD, FAILED, WHOLE = "ok", "dead", "failed", "whole"
TOUCHED, STOPPED, SUSPECT = "touched", "stopped", "suspect"
UNKNOWN = -1
"""In `shown`: Ray Data gives a column of numbers and nulls another type in each block."""
STORE_ATTEMPTS = 3
STORE_BACKOFF_S = 1.0


def never() -> bool:
    """The `Stop` of a job without a brake."""
    return False


def new_row(unit: Unit) -> Row:
    """A row that no stage has seen yet. Every column is there from the start, so that all blocks share a schema."""
    return {
        "unit_id": unit.unit_id,
        "unit": wire.unit_to_text(unit),
        "earlier": "",
        "units": "",
        "status": OK,
        "alone": False,
        "attempts": 0,
        "stage": "",
        "error_class": "",
        "message": "",
        "clip": b"",
        "rows": b"",
        "frames": b"",
        "flags": "",
        "shown": UNKNOWN,
        "n_frames": 0,
        "n_instances": 0,
        "decode_s": 0.0,
        "segment_s": 0.0,
        "commit_s": 0.0,
        "ready_at": 0.0,
        "segment_wait_s": 0.0,
        "commit_wait_s": 0.0,
    }


def row_to_probe(video: VideoRef, earlier: str = "") -> Row:
    """What `ProbeVideo` takes."""
    return {**new_row(unprobed(video)), "earlier": earlier}


def dead_row(row: Row, stage: str, fault: MediaError) -> Row:
    """The row when its file is at fault."""
    return _ended(row, DEAD, stage, fault.dead_class, fault)


def failed_row(row: Row, stage: str, fault: Exception) -> Row:
    """The row that the store or the machine kept us from finishing: neither done nor dead, the next run takes it up."""
    return _ended(row, FAILED, stage, type(fault).__name__, fault)


def _ended(row: Row, status: str, stage: str, error_class: str, fault: Exception) -> Row:
    """What tells which try this was stays; what the stages before it found goes."""
    ended = {"status": status, "stage": stage, "error_class": error_class, "message": str(fault)}
    kept = {name: row[name] for name in ("earlier", "alone", "attempts")}
    return new_row(wire.unit_from_text(row["unit"])) | kept | ended


def waited(row: Row) -> float:
    """Seconds since the stage before was done with the row; 0 where two machines' clocks disagree by more."""
    return max(0.0, time.time() - row["ready_at"]) if row["ready_at"] else 0.0


def with_retries(act: Callable[[], T]) -> T:
    """Repeat what a store refused or lost for a moment; every act of a stage may be repeated."""
    for attempt in range(STORE_ATTEMPTS - 1):
        try:
            return act()
        except (OutcomeUnknown, NotApplied):
            time.sleep(STORE_BACKOFF_S * 2**attempt)
    return act()


class ProbeVideo:
    """Video → how it is cut into units, or that it is as it was, or why it can't be."""

    def __init__(self, config: DecodeConfig, limits: DecodeLimits, unit_s: int, stop: Stop = never) -> None:
        self._decoder = GuardedDecoder(config, limits)
        self._unit_s = unit_s
        self._stop = stop

    def __call__(self, row: Row) -> Row:
        """`row` holds `unit`, the unprobed one; `units` comes back, the JSON of each unit a line.

        `earlier` is the content hash of the version whose masks the run holds, "" where it holds none.
        """
        unit = wire.unit_from_text(row["unit"])
        if self._stop():
            return row | {"status": STOPPED}
        try:
            info = with_retries(lambda: self._decoder.probe(unit.video.uri))
            video = replace(unit.video, content=with_retries(lambda: content_hash(unit.video)))
        except MediaError as fault:
            return dead_row(row, "probe", fault)
        except InputError as fault:  # a listing shows keys that no URI may hold, and one of them is to stop no other
            name = storage.redacted(unit.video.uri)
            return dead_row(row, "probe", UnreadableMedia(f"{fault}; {name!r} was listed: rename the object"))
        except (StorageError, DecoderUnavailable) as fault:
            return failed_row(row, "probe", fault)
        if row["earlier"] and video.content == row["earlier"]:
            return row | {"status": TOUCHED}
        units = cut(video, info.seconds, self._unit_s)
        return row | {"units": "\n".join(map(wire.unit_to_text, units))}

    def close(self) -> None:
        """End the decoding process; the end of this one ends it too."""
        self._decoder.close()


class DecodeUnit:
    """Unit → clip at the model's size, in a guarded child process."""

    def __init__(self, config: DecodeConfig, limits: DecodeLimits, stop: Stop = never) -> None:
        self._decoder = GuardedDecoder(config, limits)
        self._stop = stop

    def __call__(self, row: Row) -> Row:
        """Fill `clip`, or mark the row dead, failed or stopped."""
        if row["status"] != OK:
            return row
        if self._stop():
            return row | {"status": STOPPED}
        started = time.perf_counter()
        unit = wire.unit_from_text(row["unit"])
        try:
            clip = with_retries(lambda: self._decoder.decode(unit))
        except MediaError as fault:
            return dead_row(row, "decode", fault)
        except (StorageError, DecoderUnavailable) as fault:
            return failed_row(row, "decode", fault)
        seconds = time.perf_counter() - started
        return row | {"clip": wire.clip_to_bytes(clip), "decode_s": seconds, "ready_at": time.time()}

    def close(self) -> None:
        """End the decoding process; the end of this one ends it too."""
        self._decoder.close()


class CommitUnit:
    """What a unit saw → its place in the archive, or its dead letter; out comes an outcome of a few numbers."""

    def __init__(self, archive: str, record: RunRecord, software: Software | None = None) -> None:
        self._writer = VideoWriter(ArchiveWriter(archive, record, software))

    def __call__(self, row: Row) -> Row:
        """Record the unit, unless the job was stopped before it.

        A store that is away for a moment fails the unit, not the job; so does what is lost or damaged of its video, and
        what another worker did otherwise, as another kind of device may: what the archive has stays.
        """
        started, wait_s = time.perf_counter(), waited(row)
        unit = wire.unit_from_text(row["unit"])
        try:
            if row["status"] == OK:
                with_retries(lambda: self._commit(unit, row))
            elif row["status"] == DEAD:
                with_retries(lambda: self._bury(unit, row))
            elif row["status"] == WHOLE:
                self._publish(unit)
        except (OutcomeUnknown, NotApplied, NotFound, CorruptArchive, CommitConflict) as fault:
            return failed_row(row, "commit", fault)
        seconds = time.perf_counter() - started
        return row | {"rows": b"", "frames": b"", "commit_s": seconds, "commit_wait_s": wait_s}

    def _commit(self, unit: Unit, row: Row) -> None:
        flags = tuple(row["flags"].split(",")) if row["flags"] else ()
        rows, frames = wire.table_from_bytes(row["rows"]), wire.table_from_bytes(row["frames"])
        shown = None if row["shown"] == UNKNOWN else row["shown"]
        self._writer.finish(unit, rows, frames, flags, shown)

    def _publish(self, unit: Unit) -> None:
        """Raises `NotApplied` where it is whole no more: letters were retried or staged units collected meanwhile."""
        if not with_retries(lambda: self._writer.publish(unit)):
            raise NotApplied(
                f"all units of a video must be there when it is published; of {unit.video.uri} some were removed since "
                f"the job began: run it again"
            )

    def _bury(self, unit: Unit, row: Row) -> None:
        self._writer.give_up(unit, row["error_class"], row["message"], row["stage"], row["attempts"] + 1)
