"""AVSBench as clips with objects: it tells what sounds, pixel by pixel, and the instance-aware model asks for objects.

S4    all that sounds is one object of the clip's category: there is a single source
MS3   each connected region is an object; nobody says of what category
AVSS  each connected region of a class is an object of that category

Silent objects have no mask in any of them. Regions of a class are numbered by size in each frame: region 1 of two men
need not be the same man in all frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int64
from scipy import ndimage

from avs_core.audio import Alignment
from avs_core.datasets.labelled import ClipRef, InstanceTruth, LabelledClip, LabelledSet, Setting
from avs_core.errors import DataError

SOMETHING = "something"
"""The category of what has none."""


@dataclass(frozen=True)
class RegionSet:
    """A LabelledSet: the clips of another one, with binary masks and at most `most` objects, the largest."""

    data: LabelledSet
    most: int

    @property
    def name(self) -> str:
        """That of the set."""
        return self.data.name

    @property
    def setting(self) -> Setting:
        """One mask a labelled second, also of AVSS."""
        return "ms3" if self.data.setting == "avss" else self.data.setting

    @property
    def categories(self) -> tuple[str, ...]:
        """Of the objects: without the background."""
        if self.data.setting == "ms3":
            return (SOMETHING,)
        return self.data.categories[1:] if self.data.setting == "avss" else self.data.categories

    @property
    def version(self) -> str:
        """That of the set."""
        return self.data.version

    def splits(self) -> tuple[str, ...]:
        """Those of the set."""
        return self.data.splits()

    def clips(self, split: str) -> tuple[ClipRef, ...]:
        """See LabelledSet."""
        return self.data.clips(split)

    def load(self, ref: ClipRef, size: int, alignment: Alignment = "official") -> LabelledClip:
        """See LabelledSet. Raises DataError for a clip of S4 without a category too."""
        clip = self.data.load(ref, size, alignment)
        return replace(clip, labels=None, instances=self._objects(clip))

    def _objects(self, clip: LabelledClip) -> tuple[InstanceTruth, ...]:
        if self.data.setting == "s4":
            if len(clip.ref.categories) != 1:
                raise DataError(
                    f"a clip of S4 has one category, {clip.ref.clip_id} has {len(clip.ref.categories)}: check its table"
                )
            return (InstanceTruth(1, clip.ref.categories[0], clip.masks, _lit(clip.masks)),)
        labels = clip.masks.astype(np.int64) if clip.labels is None else clip.labels
        return regions(labels, self.categories, self.most)


def regions(labels: Int64[np.ndarray, "T H W"], categories: Sequence[str], most: int) -> tuple[InstanceTruth, ...]:
    """The `most` largest connected regions; label 1 is the first category, 0 none. Corners connect too."""
    found: dict[tuple[int, int], Bool[np.ndarray, "T H W"]] = {}
    for t, picture in enumerate(labels):
        for label in np.unique(picture[picture > 0]).tolist():
            for rank, region in enumerate(_connected(picture == label)):
                found.setdefault((label, rank), np.zeros(labels.shape, bool))[t] = region
    largest = sorted(found, key=lambda one: int(found[one].sum()), reverse=True)[:most]
    return tuple(
        InstanceTruth(number, categories[one[0] - 1], found[one], _lit(found[one]))
        for number, one in enumerate(largest, 1)
    )


def _lit(visible: Bool[np.ndarray, "T H W"]) -> Bool[np.ndarray, " T"]:
    """In which seconds there is something."""
    return np.array([bool(picture.any()) for picture in visible])


def _connected(mask: Bool[np.ndarray, "H W"]) -> list[Bool[np.ndarray, "H W"]]:
    """Its regions, the largest first."""
    numbers, count = ndimage.label(mask, np.ones((3, 3)))
    parts = [numbers == number for number in range(1, count + 1)]
    return sorted(parts, key=lambda part: int(part.sum()), reverse=True)
