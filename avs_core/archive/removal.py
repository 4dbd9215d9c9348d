"""A run that is not wanted any more: everything of it goes, what makes it readable first.

Removing is not atomic: a reader that has it open loses files under its hands. Killed half-way, it goes on when it is
called again with the same key. A scheduled job is kept away meanwhile, by its lease: it could fill the run.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from avs_core import storage
from avs_core.archive.current import current
from avs_core.archive.layout import ATTEMPTS, COMMITS, DEAD, RUNS, STAGED, STATS, TOUCHED, run_path, unit_ids
from avs_core.archive.lease import REPROCESS, Times, leased
from avs_core.archive.snapshots import SNAPSHOTS
from avs_core.errors import InputError, LeaseHeld
from avs_core.storage import ObjectInfo

FOLDERS = (SNAPSHOTS, COMMITS, TOUCHED, DEAD, ATTEMPTS, STAGED, STATS, "tracks", "frames", "data")
"""In this order: what lists files goes before the files."""


@dataclass(frozen=True)
class Removal:
    """What was removed, or would be."""

    run_key: str
    files: int
    bytes: int


def remove_run(archive: str, run_key: str, dry_run: bool = False, times: Times | None = None) -> Removal:
    """Remove a run. Raises `InputError` for the one that readers get, and for one of which there is nothing.

    Raises `LeaseHeld` while a scheduled job is alive, which may be filling it. To know that of one that gave no lease
    back, it may have to wait for `ttl_s`.
    """
    archive = storage.normalise(archive)
    if not any(True for _ in _files(archive, run_key)):
        named = ", ".join(sorted(unit_ids(archive, RUNS))) or "none"
        raise InputError(f"a run must be there to be removed; {archive} has {named}, not {run_key}")
    if dry_run:
        return _counted(run_key, _files(archive, run_key))
    lost = threading.Event()
    with leased(archive, REPROCESS, f"the removal of run {run_key}", lost.set, times):
        return _counted(run_key, _removed(_files(archive, run_key), lost))


def _files(archive: str, run_key: str) -> Iterator[ObjectInfo]:
    """What a run consists of, in the order in which it goes. Raises `InputError` for the one that readers get."""
    known = unit_ids(archive, RUNS)
    chosen = current(archive)
    if known == {run_key} or (chosen is not None and chosen.run_key == run_key):
        raise InputError(f"the run that readers get can't be removed; {run_key} is that of {archive}: choose another")
    if run_key in known:
        yield storage.info(storage.join(archive, run_path(run_key)))
    for folder in FOLDERS:
        yield from storage.list_files(storage.join(archive, f"{folder}/run={run_key}"))


def _removed(files: Iterable[ObjectInfo], lost: threading.Event) -> Iterator[ObjectInfo]:
    """The files, each once it is gone. Raises `LeaseHeld` as soon as another job is at work."""
    for found in files:
        if lost.is_set():
            raise LeaseHeld(
                "one job at a time; another one took over while this removal stood still, and the rest of the run is "
                "there still: run the same command again"
            )
        storage.delete(found.uri)
        yield found


def _counted(run_key: str, files: Iterable[ObjectInfo]) -> Removal:
    sizes = [found.size for found in files]
    return Removal(run_key, len(sizes), sum(sizes))
