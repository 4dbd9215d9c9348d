"""A unit of a file in an object store reads its place, however long the file is."""

import pytest

from benchmarks.late import run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

INDEXED = ("MP4", "MP4, index first", "Matroska", "MPEG-TS")


def test_the_last_unit_of_a_file_reads_no_more_for_what_lies_before_it() -> None:
    short, long = ({row.case: row.value for row in run(seconds, INDEXED)} for seconds in (60, 240))
    for container in INDEXED:
        last = f"{container}: read by its last unit"
        assert long[f"{container}: the file"] > 3.5 * short[f"{container}: the file"]
        assert long[last] < 1.25 * short[last]
        assert long[last] < 0.3 * long[f"{container}: the file"]
