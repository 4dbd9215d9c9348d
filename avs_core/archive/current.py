"""Which run readers get where an archive holds several: the one that was last made current.

A choice is a number that was put there exclusively, so it changes in one step, and of two at once one is told.

<archive>/_current/<number>.json     the highest counts
"""

from collections.abc import Callable
from typing import Literal

from avs_core import storage
from avs_core.archive.commit import settle
from avs_core.archive.layout import CURRENT, RUNS, SUFFIX, StoredRecord, parse, run_path, unit_ids
from avs_core.archive.schema import canonical_json
from avs_core.errors import CommitConflict, InputError

Chooser = Literal["person", "job"]


class Choice(StoredRecord):
    """The run that is current from this number on, and the one before it ("" for none); who chose it."""

    number: int
    run_key: str
    before: str
    by: Chooser = "job"


def current(archive: str) -> Choice | None:
    """The choice that counts; None where nobody chose."""
    archive = storage.normalise(archive)
    numbers = _numbers(archive)
    if not numbers:
        return None
    return _choice(archive, max(numbers))


def left_by_a_person(archive: str, run_key: str) -> bool:
    """Whether a person took readers away from a run and nobody has given it to them since: no job is to undo that."""
    archive = storage.normalise(archive)
    for number in sorted(_numbers(archive), reverse=True):
        choice = _choice(archive, number)
        if choice.run_key == run_key:
            return False
        if choice.before == run_key:
            return choice.by == "person"
    return False


def make_current(archive: str, run_key: str, check: Callable[[], None] | None = None, by: Chooser = "job") -> Choice:
    """Readers get this run from now on; doing it again changes nothing.

    `check` is called after the look at what is current and before the change, and stops it by raising. A choice that
    somebody makes after that is not undone, however long this process stands still.

    Raises `InputError` for a run that is not there, and `CommitConflict` when somebody else chose at the same time.
    """
    archive = storage.normalise(archive)
    if not storage.is_file(storage.join(archive, run_path(run_key))):
        raise InputError(f"a run must be in the archive to become the current one; {archive} has no {run_key}")
    chosen = current(archive)
    if chosen is not None and chosen.run_key == run_key:
        return chosen
    if check is not None:
        check()
    number, before = (chosen.number + 1, chosen.run_key) if chosen else (1, "")
    choice = Choice(number=number, run_key=run_key, before=before, by=by)
    if not settle(_uri(archive, number), canonical_json(choice.model_dump(mode="json"))):
        raise CommitConflict(f"a choice must follow the one before; another run became current in {archive} just now")
    return choice


def keep_current(archive: str, run_key: str) -> None:
    """Before a second run begins: readers go on getting the one that they get."""
    known = unit_ids(storage.normalise(archive), RUNS)
    if current(archive) is None and len(known) == 1 and known != {run_key}:
        make_current(archive, next(iter(known)))


def _choice(archive: str, number: int) -> Choice:
    uri = _uri(archive, number)
    return parse(Choice, storage.read_bytes(uri), uri)


def _numbers(archive: str) -> list[int]:
    names = (found.uri.rpartition("/")[2] for found in storage.list_files(storage.join(archive, CURRENT)))
    return [int(name.removesuffix(SUFFIX)) for name in names if name.endswith(SUFFIX)]


def _uri(archive: str, number: int) -> str:
    return storage.join(archive, f"{CURRENT}/{number:08d}{SUFFIX}")
