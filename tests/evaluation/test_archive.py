"""Masks of a real archive against the truth of a set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.schema import FrameRow, frame_table, instance_table
from avs_core.clip import Unit, VideoRef
from avs_core.errors import DataError, InputError
from avs_core.evaluation.archive import TRUTH_SIZE, ArchiveAnswers, evaluate_archive, squeezed
from tests.archive.sample import RECORD, instance, opened
from tests.evaluation.worlds import SECONDS, World

WORLD = World()
WIDE = (112, 448)
"""Height and width of the videos: the truth's square, squeezed and stretched."""


def video(clip_id: str, folder: str = "a") -> VideoRef:
    return VideoRef(f"s3://videos/{folder}/{clip_id}.mp4", 7, "f-7", 1)


def said(clip: int, offset_us: int = 930_000, wrong: bool = False) -> list[FrameRow]:
    """The truth of a clip at the video's size, or its opposite, a frame a second."""
    masks = WORLD.load(WORLD.clips("test")[clip], TRUTH_SIZE).masks
    rows = []
    for second, mask in enumerate(masks):
        wide = np.repeat(mask[::2], 2, axis=1)
        assert wide.shape == WIDE
        shown = ~wide if wrong else wide
        found = (instance(shown), instance(~shown, 1, "dog")) if shown.any() else ()
        phase = int(wrong)
        rows.append(FrameRow(second, phase, second, second * 1_000_000 + offset_us, *WIDE, True, (), found))
    return rows


def commit(writer: ArchiveWriter, clip: int, rows: list[FrameRow], folder: str = "a") -> None:
    unit = Unit(video(f"clip{clip}", folder), 0, SECONDS)
    writer.commit_unit(unit, instance_table(unit.video, rows), frame_table(unit.video, rows))


@pytest.fixture
def archive(tmp_path: Path) -> str:
    return str(tmp_path / "archive")


def test_the_truth_as_an_archive_scores_1_at_another_shape(archive: str) -> None:
    writer = opened(archive, RECORD)
    for clip in range(len(WORLD.plans)):
        commit(writer, clip, said(clip))
    report = evaluate_archive(archive, WORLD, "test")
    assert report.clips == len(WORLD.plans)
    assert report.overall.miou == pytest.approx(1, abs=1e-6)
    assert report.overall.fscore == pytest.approx(1, abs=1e-6)
    assert report.official.miou == pytest.approx(1, abs=1e-6)
    assert report.overall.empty_false_area == 0
    assert not report.unanswered
    assert not report.left_out
    assert report.listening is None


def test_dead_videos_count_as_dark_and_unknown_ones_are_named(archive: str) -> None:
    writer = opened(archive, RECORD)
    for clip in range(5):
        commit(writer, clip, said(clip))
    writer.dead_letter(Unit(video("clip6"), 0, SECONDS), "truncated", "it ends early", "decode")
    report = evaluate_archive(archive, WORLD, "test")
    assert report.unanswered == ("clip6",)
    assert report.left_out == ("clip5",)
    assert report.clips == 6
    assert report.overall.miou == pytest.approx(5 / 6, abs=1e-6)


def test_the_frame_nearest_to_the_labelled_one_answers(archive: str) -> None:
    writer = opened(archive, RECORD)
    commit(writer, 0, [*said(0, 900_000), *said(0, 400_000, wrong=True)])
    assert evaluate_archive(archive, WORLD, "test").overall.miou == pytest.approx(1, abs=1e-6)


def test_a_frame_that_is_shown_for_seconds_answers_for_each_as_it_sounded(archive: str) -> None:
    """A slide: the picture stays, and what sounds in it changes, or stops."""
    left, right = np.zeros(WIDE, bool), np.zeros(WIDE, bool)
    left[:, :100] = right[:, 300:] = True
    heard = [(instance(left),), (), (instance(right),)]
    rows = [FrameRow(second, 0, 0, 0, *WIDE, True, (), found) for second, found in enumerate(heard)]
    writer = opened(archive, RECORD)
    commit(writer, 0, rows)
    lit = ArchiveAnswers(archive).logits(WORLD.clips("test")[0], 64) > 0
    assert torch.equal(lit[0], torch.from_numpy(squeezed(left, 64)))
    assert not lit[1].any()
    assert torch.equal(lit[2], torch.from_numpy(squeezed(right, 64)))


def test_a_silent_object_does_not_take_the_mask_of_what_sounds_later(archive: str) -> None:
    seen = instance(np.ones(WIDE, bool), 1, "dog")
    lit = [np.zeros(WIDE, bool) for _ in range(2)]
    lit[0][:, :100] = lit[1][:, 300:] = True
    heard = [(seen,), (instance(lit[0]), seen), (seen,), (instance(lit[1]), seen)]
    writer, unit = opened(archive, RECORD), Unit(video("clip0"), 0, 4)
    rows = [FrameRow(second, 0, 0, 0, *WIDE, True, (), found) for second, found in enumerate(heard)]
    writer.commit_unit(unit, instance_table(unit.video, rows), frame_table(unit.video, rows))
    said = ArchiveAnswers(archive).logits(replace(WORLD.clips("test")[0], seconds=4), 64) > 0
    assert [bool(one.any()) for one in said] == [False, True, False, True]
    assert torch.equal(said[1], torch.from_numpy(squeezed(lit[0], 64)))
    assert torch.equal(said[3], torch.from_numpy(squeezed(lit[1], 64)))


def test_seconds_without_a_frame_are_dark(archive: str) -> None:
    writer = opened(archive, RECORD)
    commit(writer, 0, said(0)[:1])
    assert evaluate_archive(archive, WORLD, "test").overall.miou_sounding == pytest.approx(1 / 3, abs=1e-6)


def test_two_videos_of_one_name_are_refused(archive: str) -> None:
    writer = opened(archive, RECORD)
    commit(writer, 0, said(0))
    commit(writer, 0, said(0), folder="b")
    with pytest.raises(DataError, match="two of the name clip0"):
        ArchiveAnswers(archive)


def test_an_archive_of_other_videos_is_refused(archive: str) -> None:
    writer = opened(archive, RECORD)
    unit = Unit(VideoRef("s3://videos/holiday.mp4", 7, "f-7", 1), 0, SECONDS)
    writer.commit_unit(unit, instance_table(unit.video, said(0)), frame_table(unit.video, said(0)))
    with pytest.raises(InputError, match="named after the clips"):
        evaluate_archive(archive, WORLD, "test")


def test_squeezing_takes_the_nearest_pixel() -> None:
    mask = np.zeros((6, 3), bool)
    mask[2:4, 1] = True
    assert np.array_equal(squeezed(mask, 3), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert np.array_equal(squeezed(squeezed(mask, 12), 3), squeezed(mask, 3))
