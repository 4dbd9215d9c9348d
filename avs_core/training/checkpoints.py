"""Checkpoints on disk or S3, each whole or not there: files first, then a commit that names them with their hashes.

    <uri>/checkpoint_00000100/{weights.safetensors, …, commit.json}

A folder without a commit is torn: it is never read, and the next checkpoint removes it. The one before is deleted
after the new one is committed, so a full disk leaves a whole one.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping

from avs_core import storage
from avs_core.errors import NotFound, StorageError

LOG = logging.getLogger(__name__)

COMMIT = "commit.json"

_PLACE = re.compile(r"checkpoint_(?P<step>\d{8})/(?P<file>[\w.]+)")


class Checkpoints:
    """The checkpoints of one training. `keep` of them stay."""

    def __init__(self, uri: str, keep: int) -> None:
        self.uri, self.keep = storage.normalise(uri), keep

    def save(self, step: int, files: Mapping[str, bytes]) -> str:
        """Write and commit; its URI. Raises StorageError, and then the ones before are still whole."""
        folder = self.folder(step)
        # a repeated step replaces what an earlier driver wrote: without its commit while the files change
        storage.delete(storage.join(folder, COMMIT))
        try:
            for name, data in files.items():
                storage.write_bytes(storage.join(folder, name), data)
            facts = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
            storage.write_bytes(storage.join(folder, COMMIT), json.dumps(facts, indent=1).encode())
        except StorageError:
            self._remove(step)
            raise
        kept = self.steps()[-self.keep :]
        for other in self._folders().keys() - set(kept):
            self._remove(other)
        return folder

    def steps(self) -> list[int]:
        """Those that are committed, ascending."""
        return sorted(step for step, files in self._folders().items() if COMMIT in files)

    def newest(self) -> tuple[int, dict[str, bytes]] | None:
        """The last one whose files are as committed; None if there is none."""
        for step in reversed(self.steps()):
            files = self.load(step)
            if files is not None:
                return step, files
            LOG.warning("%s differs from its commit and is left out", self.folder(step))
        return None

    def load(self, step: int) -> dict[str, bytes] | None:
        """The files of a committed checkpoint; None where they are not what was committed."""
        folder = self.folder(step)
        try:
            facts = json.loads(storage.read_bytes(storage.join(folder, COMMIT)))
            files = {name: storage.read_bytes(storage.join(folder, name)) for name in facts}
        except NotFound:
            return None
        return files if all(hashlib.sha256(files[name]).hexdigest() == facts[name] for name in facts) else None

    def folder(self, step: int) -> str:
        """The URI of a checkpoint."""
        return storage.join(self.uri, f"checkpoint_{step:08d}")

    def _folders(self) -> dict[int, set[str]]:
        """The files of each checkpoint, whole or torn."""
        found: dict[int, set[str]] = {}
        for entry in storage.list_files(self.uri):
            place = _PLACE.fullmatch(storage.relative(entry.uri, self.uri))
            if place is not None:
                found.setdefault(int(place["step"]), set()).add(place["file"])
        return found

    def _remove(self, step: int) -> None:
        """The commit first: half a deletion is a torn checkpoint."""
        folder, files = self.folder(step), self._folders().get(step, set())
        for name in sorted(files, key=lambda name: name != COMMIT):
            storage.delete(storage.join(folder, name))
