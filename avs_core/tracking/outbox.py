"""The queue between a job and a tracking server that may be slow, away, or gone for good.

The job only appends; a thread sends. While the server is away the thread pauses longer and longer and keeps what it
could not send, up to a limit; what did not fit is counted. The job hears of it in one warning.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avs_core.errors import ConfigError, NotApplied, OutcomeUnknown
from avs_core.tracking.redaction import redact

LOG = logging.getLogger("avs_core.tracking")

LONGEST_PAUSE_S = 120.0
LONGEST_REASON = 300
"""Characters of an error that a log line repeats."""


@dataclass(frozen=True)
class Metrics:
    """Numbers at one moment: ms since 1970, and the job's own step."""

    values: Mapping[str, float]
    time_ms: int
    step: int


@dataclass(frozen=True)
class Params:
    """What the job was told to do; set once."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Tags:
    """What is good to know about it."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class TextFile:
    """An artefact whose content is here; `is_table` if the server's pages should show it as a table."""

    text: str
    name: str
    is_table: bool = False


@dataclass(frozen=True)
class DiskFile:
    """An artefact whose content is in a file that stays until the run is finished."""

    path: Path
    name: str


@dataclass(frozen=True)
class Ended:
    """The run is over."""

    status: str
    time_ms: int


Entry = Metrics | Params | Tags | TextFile | DiskFile | Ended

Send = Callable[[Sequence[Entry]], None]
"""Delivers some metrics, or one other entry. Raises `OutcomeUnknown` (away: try again) or `NotApplied` (refused)."""


@dataclass(frozen=True)
class Patience:
    """How long an outbox waits for its server, and how much it keeps meanwhile.

    capacity     entries that are kept; the oldest metrics give way to what is newer
    batch        metrics entries that are sent at once
    pause_s      after the first failure; doubled after each further one, up to `LONGEST_PAUSE_S`
    close_s      seconds without any success that closing waits (a new local database takes ten), `close_away_s`
                 while the server is away
    """

    capacity: int = 10_000
    batch: int = 50
    pause_s: int | float = 5.0
    close_s: int | float = 60.0
    close_away_s: int | float = 4.0

    def __post_init__(self) -> None:
        if min(self.capacity, self.batch, self.pause_s, self.close_s, self.close_away_s) <= 0:
            raise ConfigError(f"the limits of an outbox must be positive, got {self}")


class Outbox:
    """Sends entries in their order, in a thread of its own."""

    def __init__(self, send: Send, where: str, patience: Patience | None = None) -> None:
        """`where` names the server in messages."""
        self._send, self._where, self._patience = send, where, patience or Patience()
        self._waiting: deque[Entry] = deque()
        self._flying: list[Entry] = []
        self._changed = threading.Condition()
        self._closing = self._away = self._warned = False
        self._dropped = 0
        self._last_success = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Entries that were not delivered and will not be."""
        return self._dropped

    def put(self, entry: Entry) -> None:
        """Append an entry; never waits."""
        with self._changed:
            if self._closing:
                self._dropped += 1
                return
            if len(self._waiting) >= self._patience.capacity and not self._make_room():
                self._dropped += 1
                return
            self._waiting.append(entry)
            self._changed.notify_all()

    def close(self) -> int:
        """Send what is left, within limits; returns how many entries were never delivered, and says so."""
        with self._changed:
            self._closing = True
            self._last_success = time.monotonic()
            self._changed.notify_all()
        while self._thread.is_alive() and time.monotonic() < self._last_success + self._limit_s():
            self._thread.join(0.05)
        with self._changed:
            self._dropped += len(self._waiting) + len(self._flying)
            self._waiting.clear()
            self._flying = []
        if self._dropped:
            LOG.warning("%d entries of the tracking run did not reach %s", self._dropped, self._where)
        return self._dropped

    def _limit_s(self) -> int | float:
        return self._patience.close_away_s if self._away else self._patience.close_s

    def _make_room(self) -> bool:
        """Drop the oldest metrics: a chart can spare a point, but not a run its parameters."""
        for place, entry in enumerate(self._waiting):
            if isinstance(entry, Metrics):
                del self._waiting[place]
                self._dropped += 1
                return True
        return False

    def _work(self) -> None:
        pause_s = self._patience.pause_s
        while self._take():
            try:
                self._send(tuple(self._flying))
            except OutcomeUnknown as error:
                if not self._keep(error, pause_s):
                    return
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            except NotApplied as error:
                self._refused(error)
            else:
                self._delivered()
                pause_s = self._patience.pause_s

    def _take(self) -> bool:
        """Move what is sent next to `_flying`; False when there is nothing left to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return False
            self._flying = [self._waiting.popleft()]
            while (
                isinstance(self._flying[0], Metrics)
                and self._waiting
                and isinstance(self._waiting[0], Metrics)
                and len(self._flying) < self._patience.batch
            ):
                self._flying.append(self._waiting.popleft())
            return True

    def _keep(self, error: OutcomeUnknown, pause_s: int | float) -> bool:
        """Put back what did not arrive and pause; False when the run is ending and the server was away before, too."""
        self._warn("is away, the job goes on and tracking is tried again now and then", error)
        with self._changed:
            last = self._closing and self._away
            self._away = True
            self._waiting.extendleft(reversed(self._flying))
            self._flying = []
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, pause_s)
            return not last

    def _refused(self, error: NotApplied) -> None:
        self._warn("refuses what it is sent, the job goes on", error)
        with self._changed:
            self._dropped += len(self._flying)
            self._flying = []

    def _delivered(self) -> None:
        with self._changed:
            self._flying = []
            self._away = False
            self._last_success = time.monotonic()

    def _warn(self, what: str, error: Exception) -> None:
        """Once a run: a server that comes and goes is not news each time."""
        reason = redact(" ".join(str(error).split()))[:LONGEST_REASON]
        LOG.log(logging.DEBUG if self._warned else logging.WARNING, "tracking at %s %s: %s", self._where, what, reason)
        self._warned = True
