"""A clip below the root of a benchmark: written whole, and left alone where it is there already."""

import hashlib
import json
from dataclasses import asdict

from avs_core import storage
from avs_core.datasets.benchmark import layout
from avs_core.datasets.benchmark.composing import compose_clip
from avs_core.datasets.benchmark.manifest import ManifestRow, row_from_json
from avs_core.datasets.benchmark.plan import SIZE, ClipSpec
from avs_core.datasets.composites import Composer, ComposerConfig
from avs_core.datasets.sources import Sources, Split
from avs_core.errors import NotFound


class ClipWriter:
    """Writes clips below the root `out`; `version` says which benchmark they belong to."""

    def __init__(self, out: str, version: str, sources: Sources) -> None:
        self._out, self._version, self._sources = out, version, sources
        self._composers: dict[Split, Composer] = {}

    def write(self, spec: ClipSpec) -> ManifestRow:
        """Write what is not there yet, the truth last; returns the clip's row. May be repeated.

        Raises StorageError, and ConfigError if no scene of this kind can be made of the split's sources.
        """
        path = layout.instances(spec.setting, spec.split, spec.clip_id)
        found = self._finished(path)
        if found is not None:
            return found
        clip = compose_clip(self._composer(spec.split), spec)
        for name, data in clip.files.items():
            storage.write_bytes(storage.join(self._out, name), data)
        truth = {
            "clip_id": spec.clip_id,
            "version": self._version,
            "height": SIZE,
            "width": SIZE,
            "seconds": clip.row.seconds,
            "objects": clip.objects,
            "clip": asdict(clip.row),
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in clip.files.items()},
        }
        storage.write_bytes(storage.join(self._out, path), json.dumps(truth, sort_keys=True).encode())
        return clip.row

    def _finished(self, path: str) -> ManifestRow | None:
        """The row of a clip of this version that is there with every file as it was written."""
        try:
            truth = json.loads(storage.read_bytes(storage.join(self._out, path)))
            if truth["version"] != self._version:
                return None
            for name, digest in truth["files"].items():
                if hashlib.sha256(storage.read_bytes(storage.join(self._out, name))).hexdigest() != digest:
                    return None
            return row_from_json(truth["clip"])
        except (NotFound, ValueError, KeyError, TypeError):  # missing, or not as we write it: compose it anew
            return None

    def _composer(self, split: Split) -> Composer:
        if split not in self._composers:
            self._composers[split] = Composer(self._sources, split, ComposerConfig())
        return self._composers[split]
