"""How much of what readers have a new run must hold, and who may change them over to it. With Ray, the job is in
tests/jobs/test_reprocess_job.py."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from avs_core import storage
from avs_core.archive.current import current, keep_current, make_current
from avs_core.archive.read import resolve_run
from avs_core.archive.schema import run_key
from avs_core.clip import VideoRef
from avs_core.errors import InputError, StoppedEarly
from avs_core.pipelines import brake as brake_module
from avs_core.pipelines.brake import Brake
from avs_core.pipelines.coverage import Coverage, coverage
from avs_core.pipelines.interrupt import interruptible
from avs_core.pipelines.job_config import JobConfig
from avs_core.pipelines.main_job import DoneJob
from avs_core.pipelines.reprocess import Reprocessed, reprocess
from avs_core.pipelines.schedule_config import ScheduleConfig
from avs_core.pipelines.segment import SegmentResult
from avs_core.pipelines.segment_config import SegmentConfig
from jobs.reprocess import scheduled_exit_code
from jobs.runs import use as runs_use
from tests.archive import sample

NEW = sample.RECORD.model_copy(update={"thresholds": {"mask": 0.75}})
FIRST, SECOND = run_key(sample.RECORD), run_key(NEW)
VIDEOS = [sample.video(name) for name in "abcd"]


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """A run that holds three of four videos; the fourth can't be done."""
    writer = sample.opened(str(tmp_path / "archive"))
    for video in VIDEOS[:3]:
        sample.commit(writer, sample.units(video)[0])
    writer.dead_letter(sample.units(VIDEOS[3])[0], "unreadable", "", "probe")
    return writer.uri


def test_a_second_run_does_not_take_the_readers_with_it(archive: str) -> None:
    keep_current(archive, FIRST)
    assert current(archive) is None  # the only run needs no choice
    keep_current(archive, SECOND)
    sample.opened(archive, NEW)
    assert resolve_run(archive, None) == FIRST
    keep_current(archive, SECOND)
    chosen = current(archive)
    assert chosen is not None
    assert chosen.number == 1


def test_where_several_runs_were_made_by_hand_nobody_chooses_for_their_owner(archive: str) -> None:
    sample.opened(archive, NEW)
    keep_current(archive, "r0")
    assert current(archive) is None
    with pytest.raises(InputError, match="avs runs use"):
        resolve_run(archive, None)


def test_the_first_run_covers_what_is_settled(archive: str) -> None:
    assert coverage(archive, FIRST, VIDEOS) == Coverage(share=1.0, lost=0)
    assert coverage(archive, FIRST, [*VIDEOS, sample.video("e")]) == Coverage(share=0.8, lost=0)


def test_a_video_that_readers_have_and_the_new_run_has_not_is_lost(archive: str) -> None:
    make_current(archive, FIRST)
    writer = sample.opened(archive, NEW)
    assert coverage(archive, SECOND, VIDEOS) == Coverage(share=0.0, lost=0)
    sample.commit(writer, sample.units(VIDEOS[0])[0])
    writer.dead_letter(sample.units(VIDEOS[1])[0], "nan", "", "segment")
    writer.dead_letter(sample.units(VIDEOS[3])[0], "unreadable", "", "probe")
    sample.commit(writer, sample.units(VIDEOS[2], 2)[0])  # half of it
    assert coverage(archive, SECOND, VIDEOS) == Coverage(share=0.5, lost=1)


@pytest.fixture
def files(tmp_path: Path) -> list[VideoRef]:
    """Eight videos that are there, all of them in the current run."""
    writer, videos = sample.opened(str(tmp_path / "archive")), []
    for name in "abcdefgh":
        (path := tmp_path / f"{name}.mp4").write_bytes(b"")
        videos.append(VideoRef(str(path), 0, f"{name}-0"))
        sample.commit(writer, sample.units(videos[-1])[0])
    make_current(writer.uri, FIRST)
    return videos


def test_a_job_over_one_video_takes_no_reader_the_others_away(tmp_path: Path, files: list[VideoRef]) -> None:
    uri = str(tmp_path / "archive")
    writer = sample.opened(uri, NEW)
    sample.commit(writer, sample.units(files[0])[0])
    assert coverage(uri, SECOND, files[:1], 0.99) == Coverage(share=1 / 8, lost=0, missing=7)
    for video in files[1:6]:
        sample.commit(writer, sample.units(video)[0])
    assert coverage(uri, SECOND, files[:1], 0.99) == Coverage(share=6 / 8, lost=0, missing=2)
    assert coverage(uri, SECOND, files, 0.99) == Coverage(share=6 / 8, lost=0)


def test_videos_whose_files_are_gone_hinder_no_run(tmp_path: Path, files: list[VideoRef]) -> None:
    uri = str(tmp_path / "archive")
    writer = sample.opened(uri, NEW)
    for video in files[:7]:
        sample.commit(writer, sample.units(video)[0])
    assert coverage(uri, SECOND, files[:7], 0.99) == Coverage(share=7 / 8, lost=0, missing=1)
    Path(files[7].uri).unlink()
    assert coverage(uri, SECOND, files[:7], 0.99) == Coverage(share=1.0, lost=0)


def test_the_store_is_asked_only_where_its_answer_can_change_anything(
    tmp_path: Path, files: list[VideoRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, asked = str(tmp_path / "archive"), []
    writer = sample.opened(uri, NEW)
    sample.commit(writer, sample.units(files[0])[0])
    monkeypatch.setattr("avs_core.pipelines.coverage.still_there", lambda uris: asked.append(1) or [True for _ in uris])
    assert coverage(uri, SECOND, files[:2], 0.99).share == 1 / 8  # its own inputs are not done either
    assert coverage(uri, SECOND, files[:1], 0.1).share == 1 / 8  # enough as it is
    assert not asked
    monkeypatch.setattr("avs_core.pipelines.coverage._AT_ONCE", 2)
    assert coverage(uri, SECOND, files[:1], 0.5).missing == 7
    assert len(asked) == 1  # with two still there it is clear


# The job: what Ray does stands still, leases and choices are real.


@pytest.fixture
def rerun(archive: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reprocessed]:
    """A scheduled job that has the second run covered; `then` happens before it comes to readers."""
    make_current(archive, FIRST)
    writer = sample.opened(archive, NEW)
    for video in VIDEOS:
        sample.commit(writer, sample.units(video)[0])
    result = SegmentResult(archive, SECOND, len(VIDEOS), 4, 20, 20, 0, 0, 20.0, 1.0)

    def run(then: Callable[[Brake], object] = lambda _: None, schedule: ScheduleConfig | None = None) -> Reprocessed:
        def main_job(inputs: object, config: object, job: object, brake: Brake) -> DoneJob:
            then(brake)
            return DoneJob(result, VIDEOS, (), None, None, FIRST)

        monkeypatch.setattr("avs_core.pipelines.reprocess.run_main_job", main_job)
        return reprocess(["videos"], SegmentConfig(archive=archive), JobConfig(), schedule or ScheduleConfig())

    return run


def test_a_job_that_holds_its_lease_changes_readers_over(archive: str, rerun: Callable[..., Reprocessed]) -> None:
    done = rerun()
    assert (done.switched, done.overtaken, done.shown) == (True, False, True)
    assert resolve_run(archive, None) == SECOND
    again = rerun()
    assert (again.switched, again.shown) == (False, True)


def test_no_job_undoes_that_a_person_went_back(archive: str, rerun: Callable[..., Reprocessed]) -> None:
    rerun()
    assert runs_use(archive, FIRST) == 0
    done = rerun()
    assert (done.switched, done.withdrawn, done.shown, done.current) == (False, True, False, FIRST)
    assert scheduled_exit_code(done) == 5
    assert resolve_run(archive, None) == FIRST
    runs_use(archive, SECOND)
    assert (done := rerun()).shown
    assert not done.withdrawn


def test_a_job_that_slept_does_not_take_the_newer_run_from_readers(
    archive: str, rerun: Callable[..., Reprocessed]
) -> None:
    newest = sample.RECORD.model_copy(update={"thresholds": {"mask": 0.9}})

    def another_job_comes_and_ends(brake: Brake) -> None:
        other = b'{"host": "elsewhere", "pid": 7, "what": "reprocess"}'
        storage.put_if_absent(storage.join(archive, "_leases/reprocess/00000002.json"), other)
        make_current(archive, sample.opened(archive, newest).run_key)
        storage.write_bytes(storage.join(archive, "_leases/reprocess/00000002.free"), b"")

    done = rerun(another_job_comes_and_ends)
    assert (done.switched, done.overtaken, done.shown) == (False, True, False)
    assert done.current == resolve_run(archive, None) == run_key(newest)


def test_a_job_whose_grace_is_over_has_stopped_early(
    rerun: Callable[..., Reprocessed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brake_module, "POLL_S", 0.01)
    board = SimpleNamespace(write=SimpleNamespace(remote=lambda: None))

    def never_ends(brake: Brake) -> None:
        with interruptible() as interrupt:
            watch = (brake, board, threading.Event(), interrupt)
            threading.Thread(target=brake_module._watch, args=watch).start()
            time.sleep(60)

    with pytest.raises((StoppedEarly, KeyboardInterrupt), match=r"0 s \(--grace-s\).*1e-09 hours.*goes on from there"):
        rerun(never_ends, ScheduleConfig(max_hours=1e-9, grace_s=0))


def test_a_person_who_interrupts_a_job_that_is_stopping_is_told_so(rerun: Callable[..., Reprocessed]) -> None:
    def ctrl_c(brake: Brake) -> None:
        assert brake.reason
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rerun(ctrl_c, ScheduleConfig(max_hours=1e-9))
