"""What was tried in vain, as drivers note it that outlived the try.

<archive>/_attempts/run=<run_key>/<unit_id>.<5 digits>.<class>.json

A driver that dies with its workers notes nothing, so that it blames no video. One listing tells how often each unit
was tried and whether it must run alone. No reader of masks looks here, and `archive_digest` leaves it out.
"""

from collections import defaultdict

from avs_core import storage
from avs_core.archive.commit import settle
from avs_core.archive.layout import SUFFIX, StoredRecord, VideoRecord, attempts_folder
from avs_core.archive.schema import canonical_json
from avs_core.clip import Unit
from avs_core.errors import DEAD_CLASSES


class Attempt(StoredRecord):
    """A try that failed: the how-many-th of its unit, where, and what it looked like."""

    unit_id: str
    video: VideoRecord
    number: int
    error_class: str
    stage: str


class Attempts:
    """The attempts of a run: those on record when it is opened, and those that this driver notes."""

    def __init__(self, uri: str, run_key: str) -> None:
        self._folder = storage.join(storage.normalise(uri), attempts_folder(run_key))
        self._classes: defaultdict[str, list[str]] = defaultdict(list)
        names = (found.uri.rpartition("/")[2] for found in storage.list_files(self._folder, recursive=False))
        for name in sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)):
            unit_id, _, error_class = name.split(".")
            self._classes[unit_id].append(error_class)

    def count(self, unit_id: str) -> int:
        """How often the unit was tried in vain."""
        return len(self._classes.get(unit_id, ()))

    def suspect(self, unit_id: str) -> bool:
        """Whether one of its tries ended in a way that what runs beside may suffer from, or cause."""
        classes = self._classes.get(unit_id, ())
        return any(DEAD_CLASSES[name].by_neighbour for name in classes if name in DEAD_CLASSES)

    def note(self, unit: Unit, error_class: str, stage: str) -> None:
        """One more. Raises `StorageError`."""
        number = self.count(unit.unit_id) + 1
        attempt = Attempt(
            unit_id=unit.unit_id,
            video=VideoRecord.of(unit.video),
            number=number,
            error_class=error_class,
            stage=stage,
        )
        name = f"{unit.unit_id}.{number:05d}.{error_class}{SUFFIX}"
        settle(storage.join(self._folder, name), canonical_json(attempt.model_dump(mode="json")))
        self._classes[unit.unit_id].append(error_class)
