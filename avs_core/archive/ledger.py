"""What a run has done, from a listing: the names of commits and dead letters suffice, none is opened."""

from dataclasses import dataclass

from avs_core import storage
from avs_core.archive.layout import commits_folder, dead_folder, staging, unit_ids


@dataclass(frozen=True)
class Ledger:
    """The ids of a run's units that need nothing more. A unit that is committed and dead counts as committed.

    Those that are `staged` wait for the others of their video, see avs_core.archive.staging.
    """

    committed: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    staged: frozenset[str] = frozenset()


def load_ledger(uri: str, run_key: str) -> Ledger:
    """The ledger of a run; empty where there is no archive yet."""
    archive = storage.normalise(uri)
    committed = unit_ids(archive, commits_folder(run_key))
    dead = unit_ids(archive, dead_folder(run_key)) - committed
    return Ledger(committed, dead, unit_ids(archive, staging(run_key), recursive=True))
