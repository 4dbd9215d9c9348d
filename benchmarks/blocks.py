"""What a round's blocks cost the driver before any work begins: seconds, and memory.

Packs of short clips, and units of a long video that stand alone. Both ways in turn on one Ray: made in the driver, as
jobs have it, and handed over as tables, of which Ray looks at each in a task.
"""

import logging
from collections.abc import Callable, Iterator

import pyarrow as pa
import ray

from avs_core.clip import Unit, VideoRef
from avs_core.pipelines.chain import pack_blocks
from avs_core.pipelines.cluster import connected
from avs_core.pipelines.packs import pack
from avs_core.pipelines.stages import Row as StageRow
from avs_core.pipelines.stages import new_row
from benchmarks.measure import Row, alternately, highest_mb

ROWS = 2000
UNIT_S = 300
LENGTHS = {"clips of 5 s": 5, f"units of {UNIT_S} s": UNIT_S}
ROUNDS = 3

Packs = list[list[StageRow]]


def run() -> list[Row]:
    """MB of the driver's memory, then seconds both ways and their ratio."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    with connected("local"):
        kept = [pack_blocks(packs(UNIT_S)[:1])]
        held = []
        for what, length in LENGTHS.items():
            cut, before = packs(length), highest_mb()
            kept.append(pack_blocks(cut))
            held.append(Row(f"{ROWS} {what}: the driver grows by", highest_mb() - before, "MB"))
        timed = [row for what, length in LENGTHS.items() for row in _timed(what, packs(length))]
    return held + timed


def packs(length: int) -> Packs:
    """Of rows of so many seconds each, as a job cuts them."""
    video = VideoRef("s3://archive/2026/03/camera-0001/0000001.mp4", 123_456_789, "etag-0123456789abcdef")
    rows = [new_row(Unit(video, index * length, (index + 1) * length, index, ROWS)) for index in range(ROWS)]
    return list(pack(rows, UNIT_S, 1))


def _timed(what: str, cut: Packs) -> Iterator[Row]:
    ways: dict[str, Callable[[], object]] = {
        "in the driver": lambda: pack_blocks(cut),
        "a task each": lambda: ray.data.from_arrow([pa.Table.from_pylist(rows) for rows in cut]),
    }
    seconds = alternately(ways, ROUNDS)
    yield Row(f"{ROWS} {what}: blocks", len(cut), "")
    for name, value in seconds.items():
        yield Row(f"{ROWS} {what}: {name}", value, "s")
    yield Row(f"{ROWS} {what}: a task each / in the driver", seconds["a task each"] / seconds["in the driver"], "×")
