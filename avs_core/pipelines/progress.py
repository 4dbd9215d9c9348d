"""How far a job is: a live line on a terminal, plain lines elsewhere; both on standard error.

Standard output stays free for what the job answers (`--json`).
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from avs_core.errors import ConfigError

HOUR_S = 3600.0
BAR_CELLS = 24
REFRESHES_PER_S = 4
LEAST = 1e-6
"""Share, or seconds: nothing is divided by less, and nothing predicted from less."""


@dataclass(frozen=True)
class Snapshot:
    """A job at one moment.

    videos, dead   how many are segmented (at least in part), how many are dead letters, `videos_total` of them all
    video_s        seconds of video that are done, of `video_s_total`
    elapsed_s      since the work began, on the clock at the wall
    """

    videos: int
    videos_total: int
    dead: int
    video_s: int | float
    video_s_total: int | float
    elapsed_s: float

    @property
    def realtime(self) -> float:
        """Seconds of video done per second."""
        return self.video_s / self.elapsed_s if self.elapsed_s > LEAST else 0.0

    @property
    def share(self) -> float:
        """How much is done, in [0, 1]: by seconds, or by videos where no length is known."""
        done, total = (
            (self.video_s, self.video_s_total)
            if self.video_s_total > 0
            else (float(self.videos + self.dead), float(self.videos_total))
        )
        return min(1.0, done / total) if total else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left at the rate so far; None before anything is done."""
        return self.elapsed_s * (1 - self.share) / self.share if self.share > LEAST else None

    def metrics(self) -> dict[str, float]:
        """Flat numbers under `progress.`, for the tracking run."""
        known = {**asdict(self), "realtime": self.realtime, "share": self.share, "eta_s": self.eta_s}
        return {f"progress.{name}": float(value) for name, value in known.items() if value is not None}

    def line(self) -> str:
        """The facts in one line."""
        facts = [
            f"{self.videos + self.dead}/{self.videos_total} videos",
            f"{self.video_s / HOUR_S:.2f}/{self.video_s_total / HOUR_S:.2f} h",
            f"{self.realtime:.1f}× realtime",
            "" if self.eta_s is None else f"{clock_time(self.eta_s)} left",
            f"{self.dead} dead",
        ]
        return "  ".join(filter(None, facts))


class Progress:
    """Tells how far a job is while its block lasts.

    with progress.over(videos=40, seconds=7200.0):
        progress.update(videos=1, seconds=180.0, dead=0)   # totals so far, not steps
    """

    def __init__(
        self, console: Console | None = None, every_s: int | float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`console` defaults to standard error; without a terminal a line comes every `every_s` seconds."""
        if not every_s > 0:
            raise ConfigError(f"the seconds between two lines of progress must be positive, got {every_s}")
        self._console = console or Console(stderr=True)
        self._every_s = every_s
        self._clock = clock
        self._started = clock()
        self._total = (0, 0.0)
        self._done = (0, 0.0, 0)

    @contextmanager
    def over(self, videos: int, seconds: int | float) -> Iterator["Progress"]:
        """Show the work on so many videos, of so many seconds together, until the block ends in whatever way."""
        self._total, self._done, self._started = (videos, seconds), (0, 0.0, 0), self._clock()
        shown = self._live() if self._console.is_terminal else self._plain()
        ended = "stopped"
        try:
            with shown:
                yield self
            ended = "done"
        finally:
            self._say(f"{ended} after {clock_time(self.snapshot().elapsed_s)}")

    def expect(self, seconds: int | float) -> None:
        """How many seconds of video there are, as known by now."""
        self._total = (self._total[0], seconds)

    def update(self, videos: int, seconds: int | float, dead: int = 0) -> None:
        """Totals so far: videos segmented at least in part, seconds of video done, dead videos."""
        self._done = (videos, seconds, dead)

    def snapshot(self) -> Snapshot:
        """How far the job is now."""
        (videos_total, video_s_total), (videos, video_s, dead) = self._total, self._done
        return Snapshot(videos, videos_total, dead, video_s, video_s_total, self._clock() - self._started)

    def _live(self) -> Live:
        # rich must not take standard output: what the job answers there is not for the console
        return Live(
            get_renderable=self._row,
            console=self._console,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
            redirect_stdout=False,
        )

    def _row(self) -> Table:
        """One row however narrow the terminal is: the bar gives way to the facts."""
        snapshot = self.snapshot()
        facts = Text(snapshot.line(), no_wrap=True, overflow="ellipsis")
        if snapshot.dead:
            facts.highlight_regex(r"\d+ dead$", "yellow")
        row = Table.grid(padding=(0, 1))
        if self._console.width > BAR_CELLS + len(facts):
            row.add_row(ProgressBar(total=1.0, completed=snapshot.share, width=BAR_CELLS), facts)
        else:
            row.add_row(facts)
        return row

    @contextmanager
    def _plain(self) -> Iterator[None]:
        ended = threading.Event()
        speaker = threading.Thread(target=self._speak, args=(ended,), name="progress", daemon=True)
        speaker.start()
        try:
            yield
        finally:
            ended.set()
            speaker.join()

    def _speak(self, ended: threading.Event) -> None:
        while not ended.wait(self._every_s):
            self._say("working")

    def _say(self, state: str) -> None:
        self._console.print(f"{state}: {self.snapshot().line()}", markup=False, highlight=False, soft_wrap=True)


def clock_time(seconds: int | float) -> str:
    """`h:mm:ss`, or `m:ss` below an hour."""
    minutes, s = divmod(round(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02}:{s:02}" if h else f"{m}:{s:02}"
