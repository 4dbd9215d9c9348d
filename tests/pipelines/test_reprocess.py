"""Which run readers get while a new one grows; the job itself is in tests/jobs/test_reprocess_job.py."""

from pathlib import Path

import pytest

from avs_core.archive.current import current, make_current
from avs_core.archive.read import resolve_run
from avs_core.archive.schema import run_key
from avs_core.errors import InputError
from avs_core.pipelines.reprocess import Coverage, coverage, keep_current
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
