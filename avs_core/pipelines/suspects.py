"""Who runs beside others, who alone and who is blamed. See docs/decisions/0012-suspects.md."""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from avs_core.archive.attempts import Attempts
from avs_core.errors import DEAD_CLASSES, NotApplied, OutcomeUnknown
from avs_core.pipelines import wire
from avs_core.pipelines.stages import OK, SUSPECT, Row, new_row, with_retries

LOG = logging.getLogger(__name__)

Rows = Generator[Row, None, None]
"""Whoever takes no more of them closes it, which ends the work behind it."""

Flow = Callable[[Sequence[Row]], Rows]


class Aside:
    """The units that an earlier or this driver suspects: kept until the others are done."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self.waiting: list[Row] = []

    def beside(self, rows: Sequence[Row], flow: Flow) -> Rows:
        """The outcomes of rows that run beside each other, as they come. Suspects are not among them.

        A unit that an earlier driver suspected is not let near the others again.
        """
        rows = [row | {"attempts": self._attempts.count(row["unit_id"])} for row in rows]
        known = [row for row in rows if row["status"] == OK and self._attempts.suspect(row["unit_id"])]
        self.waiting.extend(known)
        ids = {row["unit_id"] for row in known}
        together = [row for row in rows if row["unit_id"] not in ids]
        if not together:
            return
        with closing(flow(together)) as flowing:
            for row in flowing:
                if row["status"] == SUSPECT:
                    note(row, self._attempts)
                    self.waiting.append(row)
                else:
                    yield row

    def alone(self, flow: Flow) -> Rows:
        """The outcomes of the suspects, one at a time on each node; none of them waits any more."""
        rows = [self._afresh(row) for row in sorted(self.waiting, key=lambda row: str(row["unit"]))]
        self.waiting = []
        if rows:
            LOG.info("%d are tried alone: their workers or decoders died or stood still beside others", len(rows))
            yield from flow(rows)

    def _afresh(self, row: Row) -> Row:
        unit = wire.unit_from_text(row["unit"])
        tried = {"alone": True, "attempts": self._attempts.count(unit.unit_id)}
        return new_row(unit) | {"earlier": row["earlier"]} | tried


def note(row: Row, attempts: Attempts) -> None:
    """Put a try that failed on record; a store that is away for a moment costs the note, not the job.

    Of what the store refused the first try alone: every job asks for it again, for ever.
    """
    unit = wire.unit_from_text(row["unit"])
    if DEAD_CLASSES[row["error_class"]].by_store and attempts.count(unit.unit_id):
        return
    try:
        with_retries(lambda: attempts.note(unit, row["error_class"], row["stage"]))
    except (NotApplied, OutcomeUnknown) as fault:
        LOG.warning("an attempt could not be noted: %s: %s", unit.video.uri, fault)
