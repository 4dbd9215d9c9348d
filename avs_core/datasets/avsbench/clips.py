"""A copy of AVSBench, or the composite benchmark, as a labelled set."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64
from PIL import Image

from avs_core import storage
from avs_core.audio import Alignment
from avs_core.datasets.avsbench import pictures
from avs_core.datasets.avsbench.findings import Finding
from avs_core.datasets.avsbench.layout import ClipFiles, files_of
from avs_core.datasets.avsbench.metadata import Listed, leaks
from avs_core.datasets.avsbench.sound import read_sound
from avs_core.datasets.avsbench.truth import read_instances
from avs_core.datasets.labelled import ClipRef, InstanceTruth, LabelledClip, Setting
from avs_core.errors import ConfigError, DataError, NotFound, TrainingError

LEAK_FREE = "test-leak-free"
"""The test clips whose source video is not in train. Their refs keep the split "test"."""

_OFFICIAL = ("train", "val", "test")


@dataclass(frozen=True)
class Entry:
    """A clip of a set: `root` is its tree's, `instances` the path below it that tells about its objects, if any."""

    listed: Listed
    root: str
    instances: str | None = None

    @property
    def files(self) -> ClipFiles:
        """Paths below `root`."""
        return files_of(self.listed)


@dataclass(frozen=True)
class AvsBench:
    """A LabelledSet of the clips that the tables list. Nothing of a clip is read before `load`.

    uri        what was opened
    findings   what was wrong with the tables, see metadata.py
    """

    uri: str
    name: str
    setting: Setting
    categories: tuple[str, ...]
    version: str
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...] = ()

    def splits(self) -> tuple[str, ...]:
        """The named splits that have clips; "test-leak-free" where test clips share sources with train."""
        found = {entry.listed.ref.split for entry in self.entries}
        named = [split for split in (*_OFFICIAL, *sorted(found - {*_OFFICIAL})) if split in found]
        tested = sum(entry.listed.ref.split == "test" for entry in self.entries)
        return (*named, LEAK_FREE) if 0 < len(self._leak_free) < tested else tuple(named)

    def clips(self, split: str) -> tuple[ClipRef, ...]:
        """In file order. Raises ConfigError for an unknown split, TrainingError for one without clips."""
        known = (*_OFFICIAL, LEAK_FREE, *self.splits())
        if split not in known:
            raise ConfigError(f"a split of {self.name} is one of {', '.join(dict.fromkeys(known))}, got {split!r}")
        refs = (entry.listed.ref for entry in self.entries)
        chosen = self._leak_free if split == LEAK_FREE else tuple(ref for ref in refs if ref.split == split)
        if not chosen:
            raise TrainingError(
                f"a split must have clips; {split!r} of {storage.redacted(self.uri)} has none (it has "
                f"{', '.join(self.splits()) or 'no clips at all'}): choose another, or copy the metadata again"
            )
        return chosen

    def load(self, ref: ClipRef, size: int, alignment: Alignment = "official") -> LabelledClip:
        """Read a clip, frames and masks at size × size. Raises DataError for what is missing or broken."""
        if size < 1:
            raise ConfigError(f"frames are at least 1 pixel wide, got {size}")
        entry = self.entry(ref)
        shown = [self._picture(entry, path) for path in entry.files.frames]
        truth = self._truth(entry, shown, size)
        log_mel, waveform = read_sound(entry.root, entry.files, ref.seconds, alignment)
        return LabelledClip(
            ref=ref,
            frames=np.stack([pictures.frame(image, size) for image in shown]),
            sound=log_mel,
            waveform=waveform,
            masks=truth > 0,
            labelled=np.isin(np.arange(ref.seconds), ref.labelled),
            labels=truth if ref.setting == "avss" else None,
            instances=self._instances(entry, shown, size),
        )

    def entry(self, ref: ClipRef) -> Entry:
        """Where a clip lies. Raises ConfigError for a clip of another set."""
        entry = self._by_id.get(ref.clip_id)
        if entry is None or entry.listed.ref != ref:
            raise ConfigError(f"a clip must be one of {self.name}; {ref.clip_id!r} is not: take it from clips()")
        return entry

    @cached_property
    def _by_id(self) -> dict[str, Entry]:
        return {entry.listed.ref.clip_id: entry for entry in self.entries}

    @cached_property
    def _leak_free(self) -> tuple[ClipRef, ...]:
        refs = [entry.listed.ref for entry in self.entries]
        leaking = leaks(refs)
        return tuple(ref for ref in refs if ref.split == "test" and ref.clip_id not in leaking)

    def _picture(self, entry: Entry, path: str) -> Image.Image:
        return pictures.decode(self._read(entry, path), path)

    def _read(self, entry: Entry, path: str) -> bytes:
        try:
            return storage.read_bytes(storage.join(entry.root, path))
        except NotFound as error:
            raise DataError(
                f"every file of a clip must be there; {path} is missing in {storage.redacted(entry.root)}: "
                f"copy it again (`avs data check {storage.redacted(self.uri)}` lists what is missing)"
            ) from error

    def _truth(self, entry: Entry, shown: Sequence[Image.Image], size: int) -> Int64[np.ndarray, "T S S"]:
        """1 for what sounds, or the class; 0 in seconds without a label."""
        ref = entry.listed.ref
        truth = np.zeros((ref.seconds, size, size), np.int64)
        for second, path in zip(ref.labelled, entry.files.masks, strict=True):
            image = self._picture(entry, path)
            pictures.check_size(image, shown[second], path)
            if ref.setting == "avss":
                truth[second] = pictures.resized_classes(pictures.class_map(image, path), size)
            else:
                truth[second] = pictures.resized_mask(pictures.binary_mask(image, path), size)
        return truth

    def _instances(self, entry: Entry, shown: Sequence[Image.Image], size: int) -> tuple[InstanceTruth, ...] | None:
        """None where nobody tells of objects: not the same as a clip in which none is to be seen."""
        if entry.instances is None:
            return None
        data = self._read(entry, entry.instances)
        return read_instances(data, entry.instances, entry.listed.ref.seconds, (shown[0].height, shown[0].width), size)
