"""Which object of one frame is which of the next: an object keeps its number for as long as it can be followed. (ours)

    affinity = ½ · (IoU of the masks + agreement),   agreement = min(p, p') for one category, 0 for two

both parts in [0, 1]: where it is, and what it is. A pair below `LIKE` is none: its affinity counts as 0, so that it
can't outbid one that is. Objects and tracks are paired so that the sum of the affinities is the highest (Hungarian
algorithm); an object that gets no track starts one of its own. A track that finds no object waits `MEMORY_US` for it:
something may pass in front.

All it looks at stands in the rows of an archive, so a video's objects get the same numbers however it was cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.optimize import linear_sum_assignment

from avs_core import masks
from avs_core.masks import Rle

LIKE = 0.35
MEMORY_US = 5_000_000


@dataclass(frozen=True)
class Seen:
    """An object in a frame: where it is, what it is taken for, and how surely, in [0, 1]."""

    mask: Rle
    category: str | None
    certainty: float


@dataclass(frozen=True)
class _Track:
    number: int
    last: Seen
    time_us: int


class Associator:
    """Numbers the objects of frames that come in the order of time, from `last` + 1 on. One for each video."""

    def __init__(self, last: int = 0) -> None:
        self._tracks: list[_Track] = []
        self._last = last

    def number(self, time_us: int, seen: Sequence[Seen]) -> list[int]:
        """The numbers of the objects of the frame at `time_us`."""
        alive = self._alive(time_us)
        known = _pairs(seen, [track.last for track in alive])
        numbers = [alive[known[i]].number if i in known else self._new() for i in range(len(seen))]
        self.follow(time_us, dict(zip(numbers, seen, strict=True)))
        return numbers

    def follow(self, time_us: int, seen: dict[int, Seen]) -> None:
        """Objects of a later frame whose numbers are settled."""
        tracks = {track.number: track for track in self._alive(time_us)}
        tracks |= {number: _Track(number, one, time_us) for number, one in seen.items()}
        self._tracks = [tracks[number] for number in sorted(tracks)]  # one order, also among equals

    def _alive(self, time_us: int) -> list[_Track]:
        return [track for track in self._tracks if time_us - track.time_us <= MEMORY_US]

    def _new(self) -> int:
        self._last += 1
        return self._last


def _pairs(seen: Sequence[Seen], tracks: Sequence[Seen]) -> dict[int, int]:
    """Place of an object → place of its track."""
    if not seen or not tracks:
        return {}
    like = (masks.ious([one.mask for one in seen], [one.mask for one in tracks]) + _agreement(seen, tracks)) / 2
    like[like < LIKE] = 0
    return {int(i): int(j) for i, j in zip(*linear_sum_assignment(-like), strict=True) if like[i, j]}


def _agreement(seen: Sequence[Seen], tracks: Sequence[Seen]) -> Float64[np.ndarray, "n m"]:
    rows = [[min(a.certainty, b.certainty) if a.category == b.category else 0.0 for b in tracks] for a in seen]
    return np.asarray(rows, np.float64)
