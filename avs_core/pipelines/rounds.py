"""How much of a job is looked at at once. No Ray here.

What a job holds must not grow with the number of its videos, and work is to begin before everything is probed. Each
round starts its workers anew and waits for its slowest unit, so that there should be few of them: the first is small,
and the others as large as memory allows.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

from avs_core.archive.ledger import Ledger
from avs_core.clip import Unit, VideoRef
from avs_core.pipelines.packs import cut_at
from avs_core.pipelines.stages import WHOLE, Row, new_row
from avs_core.pipelines.units import missing_units

FIRST_VIDEOS = 500
"""Of the first round: these are probed before any worker has something to segment."""

MOST_VIDEOS = 50_000
"""Of a round: rows of the driver, about 3 KB each."""

MOST_UNITS = 4_000
"""Full units that a round may have, or packs of short videos as long: each is a block, which costs the driver
milliseconds before any work begins, and 30 KB of memory."""

GROWTH = 8
"""At most so many times as many videos as the round before."""


class Rounds:
    """Cuts a job's videos into rounds, each as large as those before it say that it may be."""

    def __init__(self, videos: Sequence[VideoRef], unit_s: int) -> None:
        """`unit_s` is the length of a full unit, seconds."""
        self._videos = videos
        self._most_s = MOST_UNITS * unit_s
        self._next = 0
        self._size = FIRST_VIDEOS
        self._bytes = 0
        self._most_bytes = float("inf")

    @property
    def rest(self) -> Sequence[VideoRef]:
        """What was not taken yet."""
        return self._videos[self._next :]

    def take(self) -> Sequence[VideoRef]:
        """The videos of the next round; none when all were taken."""
        taken = self._fitting(self._videos[self._next : self._next + self._size])
        self._next += len(taken)
        self._bytes = sum(video.size for video in taken)
        return taken

    def _fitting(self, videos: Sequence[VideoRef]) -> Sequence[VideoRef]:
        """The first of them, as far as their bytes let expect that they fit: films may follow on clips."""
        fit = sum(total <= self._most_bytes for total in accumulate(video.size for video in videos))
        return videos[: max(1, fit)]

    def learn(self, videos: int, seconds: float) -> None:
        """That many videos were taken last, and what of them is to be done takes so many seconds of video."""
        most = min(GROWTH * self._size, MOST_VIDEOS)
        if self._bytes:
            self._most_bytes = self._most_s * self._bytes / seconds if seconds else float("inf")
        self._size = max(1, min(most, int(self._most_s * videos / seconds))) if seconds else most

    def parts(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """A round's rows, cut where its videos were longer than those of the rounds before let expect."""
        return cut_at(rows, self._most_s, len(rows))


def rows_of(units: Sequence[Unit], ledger: Ledger) -> list[Row]:
    """A row for each unit of a video that is missing; where none is, one that has the video published."""
    missing = [new_row(unit) for unit in missing_units(units, ledger)]
    return missing or [new_row(units[-1]) | {"status": WHOLE}]
