"""Packs: rows that travel together as one block, because Ray's cost of a block is paid once a block. No Ray here.

Only scheduling knows of packs. Each unit of a pack is decoded, segmented and committed by itself, so that the archive
is the same however they are packed.
"""

from collections.abc import Iterator, Sequence

from avs_core.pipelines import wire
from avs_core.pipelines.stages import OK, Row

PACKS_A_WORKER = 4
"""At least so many, as long as there are rows: the last pack of a pool keeps few waiting."""

MOST_ROWS = 64
"""Of a pack: what one crash makes others do again."""


def pack(rows: Sequence[Row], most_s: int, workers: int) -> Iterator[list[Row]]:
    """Cut a list of rows into runs of at most `most_s` seconds of video each, the length of one unit.

    So the clips of a pack take no more memory than those of a long unit. A row that is longer stands alone.
    """
    return cut_at(rows, most_s, max(1, min(MOST_ROWS, len(rows) // (PACKS_A_WORKER * workers))))


def cut_at(rows: Sequence[Row], most_s: int, most_rows: int) -> Iterator[list[Row]]:
    """Cut a list of rows into runs of at most so many seconds of video and so many rows."""
    run: list[Row] = []
    seconds = 0
    for row in rows:
        more = seconds_of(row)
        if run and (len(run) == most_rows or seconds + more > most_s):
            yield run
            run, seconds = [], 0
        run.append(row)
        seconds += more
    if run:
        yield run


def one_by_one(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Each row a pack: what a crash of one repeats is that one."""
    return ([row] for row in rows)


def seconds_of(row: Row) -> int:
    """Seconds of video that a row will carry; one that is dead or whole carries none."""
    if row["status"] != OK:
        return 0
    unit = wire.unit_from_text(row["unit"])
    return unit.stop_s - unit.start_s
