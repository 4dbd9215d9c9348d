"""What the driver of the main job does between the stages, without Ray."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from avs_core import storage
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.layout import TouchRecord, VideoRecord
from avs_core.archive.ledger import Ledger, load_ledger
from avs_core.clip import VideoRef
from avs_core.errors import AccessDenied, NotApplied, OutcomeUnknown
from avs_core.pipelines import stages, wire
from avs_core.pipelines.brake import Brake
from avs_core.pipelines.cluster_watch import Census, Patience
from avs_core.pipelines.plan import Plan
from avs_core.pipelines.progress import Progress
from avs_core.pipelines.segment import _Job, _Watch
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import OK, TOUCHED, Row, never, row_to_probe
from avs_core.pipelines.totals import Totals
from avs_core.tracking import NullRun
from tests.archive import sample

VIDEOS = [VideoRef(f"/{name}.mp4", 1, "f") for name in "ab"]
EARLIER = {video.uri: TouchRecord(video=VideoRecord.of(video), as_key="0" * 28) for video in VIDEOS}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Job]:
    monkeypatch.setattr(stages, "STORE_BACKOFF_S", 0.0)
    progress, patience = Progress(Console(quiet=True)), Patience(60.0, lambda: Census(frozenset()))
    watch = _Watch(Brake(), never, patience, Totals(), NullRun(), progress)
    writer = ArchiveWriter(str(tmp_path / "archive"), sample.RECORD)
    with progress.over(videos=2, seconds=0):
        yield _Job(SegmentConfig(archive=writer.uri), writer, Ledger(), Plan([], []), watch)


def touched(closed: list[bool]) -> Iterator[Row]:
    """As the probe tells of two videos."""
    try:
        for video in VIDEOS:
            yield row_to_probe(video) | {"status": TOUCHED}
    finally:
        closed.append(True)


def refusing(fault: Exception, name: str) -> Callable[..., None]:
    put = storage.put_if_absent

    def act(uri: str, data: bytes) -> None:
        if name in uri:
            raise fault
        put(uri, data)

    return act


@pytest.mark.parametrize("fault", [NotApplied("the store answered 503"), OutcomeUnknown("the connection broke")])
def test_a_touch_that_can_not_be_written_down_fails_its_video_and_not_the_job(
    job: _Job, monkeypatch: pytest.MonkeyPatch, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "put_if_absent", refusing(fault, VIDEOS[0].video_key))
    probed: Any = touched([])
    assert job._cut(probed, EARLIER) == []
    assert (job.totals.failed, job.totals.touched) == (1, 1)
    assert f"{VIDEOS[0].uri}: {fault}" in caplog.text
    assert load_ledger(job.writer.uri, job.writer.run_key).touched == {VIDEOS[1].video_key}


def test_a_probe_is_over_when_what_becomes_of_it_ends_the_job(job: _Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds of Ray is let go while there is one."""
    monkeypatch.setattr(storage, "put_if_absent", refusing(AccessDenied("403"), ""))
    closed: list[bool] = []
    probed: Any = touched(closed)
    with pytest.raises(AccessDenied):
        job._cut(probed, EARLIER)
    assert closed


def test_of_a_video_that_is_begun_what_is_left_is_expected(job: _Job) -> None:
    """Else the live line of a film that was interrupted near its end would start at 0 of all its hours."""
    job.writer.open_run()
    units = sample.units(VIDEOS[0], 4)
    for unit in units[:3]:
        sample.commit(job.writer, unit)
    job.ledger = load_ledger(job.writer.uri, job.writer.run_key)
    probed = row_to_probe(VIDEOS[0]) | {"status": OK, "units": "\n".join(map(wire.unit_to_text, units))}
    (row,) = job._cut((one for one in [probed]), {})
    assert wire.unit_from_text(row["unit"]) == units[3]
    assert job.totals.probed_seconds == units[3].stop_s - units[3].start_s
