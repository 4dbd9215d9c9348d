"""How an archive stands: its runs, how far each is, which one readers get, who is at work. From listings."""

from avs_core import storage
from avs_core.archive.current import current
from avs_core.archive.layout import StoredRecord
from avs_core.archive.lease import Holder, holder
from avs_core.archive.ledger import load_ledger, video_keys
from avs_core.archive.read import runs
from avs_core.archive.stats import JobStats, read_stats


class RunStanding(StoredRecord):
    """One run: its videos by how they stand, and the last job that did something."""

    run_key: str
    model: str
    thresholds: dict[str, float]
    current: bool
    done: int
    dead: int
    in_progress: int
    touched: int
    last_job: JobStats | None


class Standing(StoredRecord):
    """An archive. `at_work` took the lease last and has not given it back; it may be dead."""

    archive: str
    runs: tuple[RunStanding, ...]
    at_work: Holder | None


def standing(uri: str, lease: str = "reprocess") -> Standing:
    """How the archive stands. Raises `InputError` for a path that is no archive."""
    archive = storage.normalise(uri)
    known, chosen = runs(archive), current(archive)
    shown = chosen.run_key if chosen is not None else next(iter(known)) if len(known) == 1 else ""
    found = []
    for key, record in known.items():
        ledger = load_ledger(archive, key)
        keys, jobs = video_keys(ledger), read_stats(archive, key)
        found.append(
            RunStanding(
                run_key=key,
                model=record.model,
                thresholds=record.thresholds,
                current=key == shown,
                done=len(keys.done) - len(ledger.touched),
                dead=len(keys.dead),
                in_progress=len(keys.begun),
                touched=len(ledger.touched),
                last_job=jobs[-1] if jobs else None,
            )
        )
    return Standing(archive=archive, runs=tuple(found), at_work=holder(archive, lease))
