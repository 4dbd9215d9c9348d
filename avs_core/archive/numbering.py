"""The numbers of objects: what the units of a video saw becomes the rows of an archive."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa

from avs_core import masks
from avs_core.archive.association import Associator, Seen
from avs_core.archive.schema import with_numbers

_COLUMNS = ["frame_time_us", "object_id", "category", "category_score", "height", "width", "counts"]

Row = dict[str, Any]


class Numbering:
    """Follows the objects of one video through its units, which come in the order of time."""

    def __init__(self, last: int = 0) -> None:
        """New objects get the numbers after `last`."""
        self._associate = Associator(last)

    def number(self, sightings: pa.Table) -> pa.Table:
        """The rows of the next unit (`ROW_SCHEMA`) from what it saw (`SIGHTING_SCHEMA`)."""
        numbers: list[int] = []
        for rows in _frames(sightings):
            objects = [row for row in rows if row["object_id"]]
            given = self._associate.number(rows[0]["frame_time_us"], list(map(_seen, objects)))
            numbers += [0] * (len(rows) - len(objects)) + given
        return with_numbers(sightings, numbers)

    def follow(self, instances: pa.Table) -> None:
        """A unit whose rows (`ROW_SCHEMA`) are in the archive already."""
        rows = instances.select(_COLUMNS).to_pylist()
        for time_us, found in groupby(sorted(rows, key=_time), key=_time):
            self._associate.follow(time_us, {row["object_id"]: _seen(row) for row in found if row["object_id"]})


def _frames(sightings: pa.Table) -> Iterator[list[Row]]:
    rows = sightings.select([*_COLUMNS, "look"]).to_pylist()
    yield from (list(of_look) for _, of_look in groupby(rows, key=lambda row: row["look"]))


def _time(row: Row) -> int:
    time_us: int = row["frame_time_us"]
    return time_us


def _seen(row: Row) -> Seen:
    score = row["category_score"]
    mask = masks.from_row(row["counts"], row["height"], row["width"])
    return Seen(mask, row["category"], 1.0 if score is None else score)
