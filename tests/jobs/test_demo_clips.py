"""The job that renders the demo clips."""

from pathlib import Path

import pytest

from avs_core.datasets.sources import LICENCES
from avs_core.errors import InputError
from jobs.demo_clips import demo_clips


@pytest.mark.slow
def test_the_job_writes_every_file(tmp_path: Path) -> None:
    assert demo_clips(out=tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in Path("avs_core/builtin/demo").iterdir()}


def test_unpacked_sources_without_files_are_an_error(tmp_path: Path) -> None:
    for package in LICENCES:
        (tmp_path / "sources" / package).mkdir(parents=True)
    with pytest.raises(InputError, match="names no file"):
        demo_clips(out=tmp_path / "out", sources=tmp_path / "sources")
