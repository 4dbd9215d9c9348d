"""Garbage collection: what no reader can need any more is removed. Nothing else removes what a reader may see.

Needed is what a kept snapshot lists, and the files of the commits that the oldest kept snapshot does not cover. Kept
are the newest snapshots, and each that was the newest at some time in the last `older_than_s`: a reader that opened
then still finds its files. Commits, dead letters and run records stay: they say what is done. Staged units that no job
will publish go too, see avs_core.archive.abandoned.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from avs_core import storage
from avs_core.archive.abandoned import abandoned
from avs_core.archive.layout import CommitInfo, commits_folder, unit_ids
from avs_core.archive.read import runs
from avs_core.archive.snapshots import (
    read_manifest,
    read_snapshot,
    snapshot_ages,
    snapshot_path,
    snapshots_folder,
)
from avs_core.archive.state import read_records
from avs_core.errors import ConfigError, NotFound
from avs_core.storage import ObjectInfo

DAY_S = 86_400.0
TABLES = ("data", "frames", "tracks")


@dataclass(frozen=True)
class GcReport:
    """What was removed (or would be: `dry_run`), relative to the archive, and what stays."""

    archive: str
    removed: tuple[str, ...]
    removed_bytes: int
    kept_files: int
    kept_snapshots: int
    dry_run: bool


def gc(
    uri: str,
    keep_snapshots: int = 1,
    older_than_s: float = 7 * DAY_S,
    dry_run: bool = False,
    now_s: float | None = None,
) -> GcReport:
    """Remove what nothing needs and what is older than `older_than_s` (the store's modification time, seconds).

    `older_than_s` must exceed the time that any reader keeps a data set open and that any job or compaction takes.
    `now_s` (since 1970) is the clock unless given. Raises `InputError` for a path that is no archive.
    """
    if keep_snapshots < 1 or not 0 <= older_than_s < math.inf:
        raise ConfigError(
            f"gc must keep 1 snapshot or more, and all that is younger than 0 days or more; "
            f"got --keep {keep_snapshots} and --older-than-days {older_than_s / DAY_S:g}"
        )
    archive = storage.normalise(uri)
    horizon = round(((time.time() if now_s is None else now_s) - older_than_s) * 1_000_000)
    removed: list[str] = []
    removed_bytes = kept_files = kept_snapshots = 0
    for key in runs(archive):
        kept = _kept(snapshot_ages(archive, key), keep_snapshots, horizon)
        needed = _needed(archive, key, kept)
        for info in chain(_old_snapshots(archive, key, kept), _tables(archive, key), abandoned(archive, key, horizon)):
            path = storage.relative(info.uri, archive)
            if path in needed or info.modified_us > horizon:
                kept_files += path.startswith(TABLES)
            elif dry_run or _remove(info, horizon):
                removed.append(path)
                removed_bytes += info.size
        kept_snapshots += sum(number > 0 for number in kept)
    return GcReport(
        archive=archive,
        removed=tuple(removed),
        removed_bytes=removed_bytes,
        kept_files=kept_files,
        kept_snapshots=kept_snapshots,
        dry_run=dry_run,
    )


def _kept(ages: dict[int, int], keep: int, horizon: int) -> list[int]:
    """The snapshots that stay, ascending; 0 is the state before the first."""
    numbers = [0, *ages]
    replaced = dict(zip(numbers, [*ages.values()], strict=False))  # when the next one came
    return [number for number in numbers if number in numbers[-keep:] or replaced[number] > horizon]


def _old_snapshots(archive: str, run_key: str, kept: list[int]) -> list[ObjectInfo]:
    """The files of snapshots that are not kept, and manifests that no snapshot lists; the JSON first."""
    folder = storage.join(archive, snapshots_folder(run_key))
    listed = {snapshot_path(run_key, number) for number in kept}
    listed |= {read_snapshot(archive, run_key, number).manifest.path for number in kept if number}
    found = [info for info in storage.list_files(folder) if storage.relative(info.uri, archive) not in listed]
    return sorted(found, key=lambda info: info.uri.endswith(".parquet"))


def _needed(archive: str, run_key: str, kept: list[int]) -> set[str]:
    """The paths that readers of the kept snapshots open."""
    needed: set[str] = set()
    for number in kept:
        if number:
            files = read_snapshot(archive, run_key, number).files
            needed |= {part.path for file in files for part in file.parts}
    folder = commits_folder(run_key)
    ids = unit_ids(archive, folder)
    if kept[0]:
        ids -= set(read_manifest(archive, read_snapshot(archive, run_key, kept[0]))["unit_id"].to_pylist())
    for commit in read_records(archive, folder, CommitInfo, ids):
        needed |= {commit.data.path, commit.frames.path}
    return needed


def _tables(archive: str, run_key: str) -> Iterator[ObjectInfo]:
    for kind in TABLES:
        yield from storage.list_files(storage.join(archive, f"{kind}/run={run_key}"))


def _remove(info: ObjectInfo, horizon: int) -> bool:
    """Delete, unless a writer has taken it up since it was listed (it writes it again first)."""
    try:
        if storage.info(info.uri).modified_us > horizon:
            return False
    except NotFound:
        return False
    storage.delete(info.uri)
    return True
