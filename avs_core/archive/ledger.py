"""What a run has done, from a listing: the names of commits and dead letters suffice, none is opened."""

from dataclasses import dataclass

from avs_core import storage
from avs_core.archive.layout import commits_folder, dead_folder, unit_ids


@dataclass(frozen=True)
class Ledger:
    """The ids of a run's units that need nothing more. A unit that is both counts as committed."""

    committed: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()


def load_ledger(uri: str, run_key: str) -> Ledger:
    """The ledger of a run; empty where there is no archive yet."""
    archive = storage.normalise(uri)
    committed = unit_ids(archive, commits_folder(run_key))
    return Ledger(committed, unit_ids(archive, dead_folder(run_key)) - committed)
