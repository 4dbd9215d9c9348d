"""A run that is not wanted any more: everything of it goes, what makes it readable first.

Removing is not atomic: a reader that has it open loses files under its hands. Killed half-way, it goes on when it is
called again with the same key.
"""

from dataclasses import dataclass

from avs_core import storage
from avs_core.archive.current import current
from avs_core.archive.layout import ATTEMPTS, COMMITS, DEAD, RUNS, STAGED, STATS, TOUCHED, run_path, unit_ids
from avs_core.archive.snapshots import SNAPSHOTS
from avs_core.errors import InputError

FOLDERS = (SNAPSHOTS, COMMITS, TOUCHED, DEAD, ATTEMPTS, STAGED, STATS, "tracks", "frames", "data")
"""In this order: what lists files goes before the files."""


@dataclass(frozen=True)
class Removal:
    """What was removed, or would be."""

    run_key: str
    files: int
    bytes: int


def remove_run(archive: str, run_key: str, dry_run: bool = False) -> Removal:
    """Remove a run. Raises `InputError` for the one that readers get, and for one of which there is nothing."""
    archive = storage.normalise(archive)
    known = unit_ids(archive, RUNS)
    chosen = current(archive)
    if known == {run_key} or (chosen is not None and chosen.run_key == run_key):
        raise InputError(f"the run that readers get can't be removed; {run_key} is that of {archive}: choose another")
    places = [storage.join(archive, f"{folder}/run={run_key}") for folder in FOLDERS]
    files = size = 0
    if run_key in known:
        record = storage.info(storage.join(archive, run_path(run_key)))
        files, size = 1, record.size
        if not dry_run:
            storage.delete(record.uri)
    for found in (found for place in places for found in storage.list_files(place)):
        files, size = files + 1, size + found.size
        if not dry_run:
            storage.delete(found.uri)
    if not files:
        named = ", ".join(sorted(known)) or "none"
        raise InputError(f"a run must be there to be removed; {archive} has {named}, not {run_key}")
    return Removal(run_key, files, size)
