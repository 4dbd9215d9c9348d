"""What a composed clip shows and lets hear, measured on its pixels and its sound."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from avs_core.datasets.benchmark.plan import ClipSpec

_SEEN = 0.002
"""Share of the frame that an object must cover to count as in the picture."""

_SHOWN = 0.005
"""Share of the frame that a source must cover whenever it sounds."""


@dataclass(frozen=True)
class ClipTruth:
    """What is true of a clip.

    categories    what sounds in the picture, from back to front, each once
    sources       objects in the picture that sound in some second
    throughout    each of them sounds in every second
    hidden        one of them can hardly be seen in a second in which it sounds
    silent        classes of the objects that never sound
    larger        those of them that cover at least as much as the largest source, and are of another class
    pair          one object sounds, and another of its class is silent in that second
    off_screen    something is heard that is not in the picture
    """

    categories: tuple[str, ...]
    sources: int
    throughout: bool
    hidden: bool
    silent: tuple[str, ...]
    larger: tuple[str, ...]
    pair: bool
    off_screen: bool

    def fits(self, spec: ClipSpec) -> bool:
        """Whether the clip is of the spec's kind and setting."""
        if self.hidden or (self.sources and (self.throughout == (spec.setting == "ms3"))):
            return False
        if spec.setting == "s4" and self.sources != 1:
            return False
        return {
            "alone": self.sources == 1 and not self.silent,
            "distractor": self.sources == 1 and bool(self.larger) and not self.pair,
            "companion": self.sources == 1 and bool(self.silent) and not self.larger and not self.pair,
            "pair": self.sources == 1 and self.pair,
            "off-screen": self.off_screen,
            "chorus": self.sources >= 2 and not self.larger,
            "crowd": self.sources >= 2 and bool(self.larger),
            "silence": not self.sources and not self.off_screen,
        }[spec.kind]

    def subsets(self) -> tuple[str, ...]:
        """The named groups that the clip alone decides; "silent-distractor" depends on the whole split."""
        groups = {
            "single": self.sources == 1,
            "multi": self.sources >= 2,
            "same-class-pair": self.pair,
            "off-screen": self.off_screen,
            "silent": not self.sources and not self.off_screen,
        }
        return tuple(name for name, belongs in groups.items() if belongs)


def measure(
    categories: tuple[str, ...],
    visible: Bool[np.ndarray, "A T H W"],
    sounding: Bool[np.ndarray, "A T"],
    off_screen: bool,
) -> ClipTruth:
    """The truth of A objects from their pixels and the seconds in which they sound."""
    areas = visible.mean((2, 3))
    sources = np.asarray(sounding.any(1))
    heard = [name for name, sounds in zip(categories, sources, strict=True) if sounds]
    sizes = areas.mean(1)
    largest = sizes[sources].max(initial=0.0)
    quiet = [index for index in np.flatnonzero(~sources) if sizes[index] >= _SEEN]
    larger = [index for index in quiet if heard and sizes[index] >= largest and categories[index] not in heard]
    return ClipTruth(
        categories=tuple(dict.fromkeys(heard)),
        sources=int(sources.sum()),
        throughout=bool(sounding[sources].all()),
        hidden=bool((sounding & (areas < _SHOWN)).any()),
        silent=tuple(categories[index] for index in quiet),
        larger=tuple(categories[index] for index in larger),
        pair=_has_pair(categories, areas >= _SEEN, sounding),
        off_screen=off_screen,
    )


def _has_pair(categories: tuple[str, ...], seen: Bool[np.ndarray, "A T"], sounding: Bool[np.ndarray, "A T"]) -> bool:
    """Whether in some second one object is seen to sound and another of its class is seen to be silent."""
    return any(
        bool((seen[a] & sounding[a] & seen[b] & ~sounding[b]).any())
        for a, name in enumerate(categories)
        for b, other in enumerate(categories)
        if a != b and name == other
    )
