"""What a run holds: the newest snapshot, and the commits that it does not cover.

Of each video the newest complete version is shown. A version is complete when every unit of one cut of it is
committed or dead, and one at least committed; while a video has none, what there is of its newest is shown. What a
snapshot holds was complete when it was made, and stays so.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from avs_core import storage
from avs_core.archive.layout import (
    CommitInfo,
    DeadLetter,
    commits_folder,
    dead_folder,
    find_record,
    parse,
    unit_ids,
    unit_path,
)
from avs_core.archive.snapshots import MANIFEST_SCHEMA, NO_FILE, MergedFile, OpenSnapshot, open_snapshot
from avs_core.clip import video_key_of

Record = TypeVar("Record", bound=BaseModel)

READERS = 16
"""Small objects are read this many at a time: their latency is all they cost."""


class Span(NamedTuple):
    """Where a video lies in a merged file: rows [start, stop) under data/ and under frames/."""

    file: int
    data: tuple[int, int]
    frames: tuple[int, int]


@dataclass(frozen=True)
class Settled:
    """Of the commits that no snapshot covers, those that the next one can."""

    shown: tuple[CommitInfo, ...] = ()
    replaced: tuple[CommitInfo, ...] = ()


@dataclass(frozen=True)
class RunState:
    """What readers of a run see.

    pending  the commits whose own files are shown, sorted by video and start
    dropped  ids of videos whose rows in merged files count no more: a newer version is among the pending
    grown    ids of videos whose merged rows count together with pending ones (a dead unit was done after all)
    settled  what a compaction takes up
    """

    archive: str
    run_key: str
    opened: OpenSnapshot | None
    pending: tuple[CommitInfo, ...] = ()
    dropped: frozenset[str] = frozenset()
    grown: frozenset[str] = frozenset()
    settled: Settled = field(default_factory=Settled)

    @property
    def files(self) -> tuple[MergedFile, ...]:
        """The merged files."""
        return self.opened.snapshot.files if self.opened else ()

    def units_of(self, index: int) -> pa.Table:
        """The manifest rows of a merged file, in the order of its videos."""
        manifest = self.opened.manifest if self.opened else MANIFEST_SCHEMA.empty_table()
        return manifest.filter(pc.equal(manifest["file"], index))

    def spans(self, video_ids: Iterable[str]) -> dict[str, Span]:
        """Where these videos lie in the merged files; those that do not are left out."""
        wanted = sorted(video_ids)
        if self.opened is None or not wanted:
            return {}
        manifest = self.opened.manifest
        inside = pc.is_in(manifest["video_id"], pa.array(wanted, pa.string()))
        files = np.unique(manifest.filter(inside)["file"].to_numpy())
        found: dict[str, Span] = {}
        for index in (int(number) for number in files if number != NO_FILE):
            spans = _spans_of_file(index, self.units_of(index))
            found.update((name, spans[name]) for name in wanted if name in spans)
        return found


def load_state(
    archive: str, run_key: str, snapshot: int | None = None, units: Collection[str] | None = None
) -> RunState:
    """The state of a run (`archive` in canonical form); with `snapshot`, as of that number and without what came later.

    `units` leaves all other commits out, as if they were not there: for a compaction that takes up some at a time.
    The snapshot is read before the commits are listed: a compaction in between moves nothing that it names.
    """
    opened = open_snapshot(archive, run_key, snapshot)
    if snapshot is not None:
        return RunState(archive, run_key, opened)
    folder = commits_folder(run_key)
    names = set(unit_ids(archive, folder) if units is None else units)
    commits = read_records(archive, folder, CommitInfo, names - covered_units(opened, None if units is None else names))
    cuts: _Cuts = defaultdict(dict)
    for commit in commits:
        video = commit.video
        _cut(cuts, video.video_id, (video.fingerprint, commit.of), video.modified_us).commits.append(commit)
    for row in _held(opened, cuts):
        held = _cut(cuts, row["video_id"], (row["fingerprint"], row["of"]), row["modified_us_max"])
        held.merged, held.merged_s = row["count_all"], row["stop_s_sum"] - row["start_s_sum"]
    return _sorted_out(archive, run_key, opened, cuts, unit_ids(archive, dead_folder(run_key)))


def covered_units(opened: OpenSnapshot | None, among: Collection[str] | None = None) -> set[str]:
    """The ids of the units that a snapshot covers; `among` some, which of them."""
    if opened is None:
        return set()
    ids = opened.manifest["unit_id"]
    if among is not None:
        ids = ids.filter(pc.is_in(ids, pa.array(sorted(among), pa.string())))
    return set(ids.to_pylist())


def read_records(archive: str, folder: str, kind: type[Record], names: Iterable[str]) -> list[Record]:
    """The JSON records of these units in a folder, sorted by unit id."""
    uris = (storage.join(archive, unit_path(folder, unit_id)) for unit_id in sorted(names))
    return list(storage.in_threads(lambda uri: parse(kind, storage.read_bytes(uri), uri), uris, READERS))


def read_letters_of(archive: str, run_key: str, names: Iterable[str]) -> list[DeadLetter]:
    """The dead letters of these units, sorted by unit id, but for those that are gone since they were listed.

    Letters are the only records that go: people have videos tried again, and jobs forget what is settled otherwise.
    """
    uris = (storage.join(archive, unit_path(dead_folder(run_key), unit_id)) for unit_id in sorted(names))
    letters = storage.in_threads(lambda uri: find_record(DeadLetter, uri), uris, READERS)
    return [letter for letter in letters if letter is not None]


@dataclass
class _Cut:
    """One cut of one version of a video: its units in a merged file, their seconds, and the commits that are not there.

    `modified_us` is the latest of its units': an object that is uploaded again keeps its fingerprint on S3.
    """

    fingerprint: str
    of: int
    modified_us: int
    merged: int = 0
    merged_s: int = 0
    commits: list[CommitInfo] = field(default_factory=list)

    def complete(self, dead: frozenset[str]) -> bool:
        if self.merged:
            return True
        done = {commit.unit_id for commit in self.commits}
        key = video_key_of(self.commits[0].unit_id)
        return all(name in done or name in dead for name in (f"{key}-{i:05d}of{self.of:05d}" for i in range(self.of)))

    @property
    def version(self) -> tuple[int, str]:
        """What orders versions."""
        return self.modified_us, self.fingerprint

    @property
    def seconds(self) -> int:
        """What it holds of the video: a dead unit is a hole."""
        return self.merged_s + sum(commit.stop_s - commit.start_s for commit in self.commits)


_Cuts = dict[str, dict[tuple[str, int], _Cut]]
"""By video id, then by fingerprint and number of units."""


def _cut(cuts: _Cuts, video_id: str, version: tuple[str, int], modified_us: int) -> _Cut:
    found = cuts[video_id].setdefault(version, _Cut(*version, modified_us))
    found.modified_us = max(found.modified_us, modified_us)
    return found


def _held(opened: OpenSnapshot | None, video_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Of these videos, what merged files hold: of each the cut, its modification time, its units and their seconds."""
    if opened is None:
        return []
    inside = pc.is_in(opened.manifest["video_id"], pa.array(sorted(video_ids), pa.string()))
    rows = opened.manifest.filter(pc.and_(inside, pc.not_equal(opened.manifest["file"], NO_FILE)))
    sums = [("modified_us", "max"), ("start_s", "sum"), ("stop_s", "sum"), ([], "count_all")]
    return list(rows.group_by(["video_id", "fingerprint", "of"]).aggregate(sums).to_pylist())


def _sorted_out(
    archive: str,
    run_key: str,
    opened: OpenSnapshot | None,
    cuts: _Cuts,
    dead: frozenset[str],
) -> RunState:
    """Which of the commits are shown, and which of them are settled."""
    pending: list[CommitInfo] = []
    ready: list[CommitInfo] = []
    replaced: list[CommitInfo] = []
    dropped, grown = set(), set()
    for video_id, versions in cuts.items():
        shown = max(versions.values(), key=lambda cut: _rank(cut, dead))
        pending.extend(shown.commits)
        if shown.merged and shown.commits:
            grown.add(video_id)
        if not shown.merged and any(cut.merged for cut in versions.values()):
            dropped.add(video_id)
        if shown.complete(dead):
            ready.extend(shown.commits)
            replaced.extend(
                commit for cut in versions.values() if _outranked(cut, shown, dead) for commit in cut.commits
            )
    return RunState(
        archive,
        run_key,
        opened,
        _in_order(pending),
        frozenset(dropped),
        frozenset(grown),
        Settled(_in_order(ready), _in_order(replaced)),
    )


def _rank(cut: _Cut, dead: frozenset[str]) -> tuple[bool, int, str, int, int, int]:
    """What is shown before what: of one version, the cut that holds more of the video."""
    return cut.complete(dead), *cut.version, cut.seconds, len(cut.commits) + cut.merged, -cut.of


def _outranked(cut: _Cut, shown: _Cut, dead: frozenset[str]) -> bool:
    """Whether a cut can't be shown again: of an older version, or a complete one of the same."""
    return cut is not shown and (cut.version < shown.version or (cut.version == shown.version and cut.complete(dead)))


def _in_order(commits: Sequence[CommitInfo]) -> tuple[CommitInfo, ...]:
    return tuple(sorted(commits, key=lambda commit: (commit.video.uri, commit.start_s, commit.unit_id)))


def _spans_of_file(index: int, rows: pa.Table) -> dict[str, Span]:
    """The videos of one merged file, whose manifest rows are in the order of their videos."""
    names = rows["video_id"].to_pylist()
    ends = {kind: np.cumsum(rows[f"{kind}_rows"].to_numpy()).tolist() for kind in ("data", "frame")}
    spans: dict[str, Span] = {}
    start = (0, 0)
    for name, *stop in zip(names, ends["data"], ends["frame"], strict=True):
        first = spans[name] if name in spans else Span(index, (start[0], 0), (start[1], 0))
        spans[name] = Span(index, (first.data[0], stop[0]), (first.frames[0], stop[1]))
        start = (stop[0], stop[1])
    return spans
