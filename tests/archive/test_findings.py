"""The short form of a run: what each video's line says."""

import pytest

from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.dead import choose_letters, retry_letters
from avs_core.archive.findings import findings
from avs_core.archive.staging import VideoWriter
from avs_core.clip import Unit
from tests.archive import sample


def bring(writer: ArchiveWriter, unit: Unit, *flags: str) -> None:
    """Finish a unit whose decoding had these flags."""
    VideoWriter(writer).finish(unit, *sample.sightings(unit), flags, 25 * (unit.stop_s - unit.start_s))


def test_each_video_has_a_line(archive: str) -> None:
    writer = sample.opened(archive)
    for one in sample.units(sample.video("a"), 2):
        sample.commit(writer, one)
    writer.dead_letter(sample.units(sample.video("b"))[0], "truncated", "it ends within a packet", "decode")
    seen, dead = findings(archive)
    assert (seen.name, seen.frames, seen.sounding, seen.note) == ("a.mp4", 10, 6, "")
    masks = [sample.picture(second) for second in range(10) if second % 3]
    assert seen.area_share == pytest.approx(sum(mask.mean() for mask in masks) / len(masks))
    assert seen.score == pytest.approx(0.75)
    assert (dead.name, dead.frames, dead.sounding, dead.note) == ("b.mp4", 0, 0, "truncated")


def test_only_the_asked_videos_count_and_letters_of_the_asked_versions(archive: str) -> None:
    """Readers see the version before one that is dead, so its masks are what was found."""
    writer = sample.opened(archive)
    for name in "ab":
        sample.commit(writer, sample.units(sample.video(name))[0])
    writer.dead_letter(sample.units(sample.video("a", 2))[0], "timeout", "it hangs", "decode")
    notes = {version: findings(archive, None, [sample.video("a", version)]) for version in (1, 2)}
    assert [[(one.name, one.frames, one.note) for one in found] for found in notes.values()] == [
        [("a.mp4", 5, "")],
        [("a.mp4", 5, "timeout")],
    ]


def test_a_unit_that_was_dead_once_adds_its_flags(archive: str) -> None:
    """The others were published without it, so their rows do not know of it."""
    writer = sample.opened(archive)
    first, second = sample.units(sample.video(), 2)
    bring(writer, first, "resolution_change")
    VideoWriter(writer).give_up(second, "timeout", "it hung", "decode")
    assert retry_letters(archive, choose_letters(archive)) == 1
    bring(writer, second, "audio_padded")
    (found,) = findings(archive)
    assert (found.frames, found.note) == (10, "audio_padded,resolution_change")
