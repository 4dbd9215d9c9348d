"""What is known of a file before it is decoded, against what its recipe says."""

from pathlib import Path

import pytest

from avs_core.errors import MediaTooLarge, NoVideoStream
from avs_core.media.probe import probe
from tests.media.clips import CHIRP, ffmpeg
from tests.media.recipes import BASE, FAST


def test_a_plain_file(plain: Path) -> None:
    info = probe(str(plain))
    assert (info.duration_s, info.seconds, info.n_frames) == (3.0, 3, 75)
    assert (info.width, info.height, info.rotation) == (160, 120, 0)
    assert (info.codec, info.fps) == ("h264", 25.0)
    assert (info.has_audio, info.audio_codec, info.audio_rate, info.audio_channels) == (True, "aac", 44100, 1)


@pytest.mark.parametrize("recipe", FAST, ids=lambda recipe: recipe.name)
def test_durations_are_those_of_the_picture(videos: Path, recipe: object) -> None:
    """Frames over frames a second, to a frame; the packed AVI holds frames that are never shown."""
    info = probe(str(recipe.make(videos)))  # type: ignore[attr-defined]
    over, _, under = recipe.fps.partition("/")  # type: ignore[attr-defined]
    step = float(under or 1) / float(over)
    assert abs(info.duration_s - recipe.frames * step) <= 1.01 * step  # type: ignore[attr-defined]


@pytest.mark.parametrize("seconds", [1.5, 5.0])
def test_sound_does_not_change_the_duration(videos: Path, seconds: float) -> None:
    path = BASE.but(f"sound_{seconds}.mp4", sound=CHIRP.format(d=seconds, r=44100)).make(videos)
    assert probe(str(path)).duration_s == 3.0


def test_rotation_is_counter_clockwise_and_swaps_the_sides(tmp_path: Path, plain: Path) -> None:
    for degrees, size in [(90, (120, 160)), (180, (160, 120)), (270, (120, 160))]:
        path = tmp_path / f"{degrees}.mp4"
        ffmpeg("-display_rotation", str(degrees), "-i", str(plain), "-c", "copy", str(path))
        info = probe(str(path))
        assert (info.rotation, (info.width, info.height)) == (degrees, size)


def test_the_largest_of_several_pictures_is_taken(videos: Path, plain: Path) -> None:
    large, path = BASE.but("larger.mp4", size=(144, 192)).make(videos), videos / "two_pictures.mkv"
    maps = ("-map", "0:v", "-map", "1:v", "-c", "copy", "-disposition:v", "0")
    ffmpeg("-i", str(plain), "-i", str(large), *maps, str(path))
    info = probe(str(path))
    assert (info.width, info.height, info.has_audio) == (192, 144, False)


def test_pixels_are_limited(plain: Path) -> None:
    with pytest.raises(MediaTooLarge, match="160×120 = 19200"):
        probe(str(plain), max_pixels=19_199)
    assert probe(str(plain), max_pixels=19_200).width == 160


def test_hours_are_limited(plain: Path) -> None:
    """Two frames a century apart fit into a kilobyte, and would be cut into millions of units."""
    with pytest.raises(MediaTooLarge, match=r"at most 0\.0008 hours"):
        probe(str(plain), max_hours=0.0008)
    assert probe(str(plain), max_hours=0.0009).seconds == 3


def test_subtitles_alone_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    ffmpeg("-i", str(tmp_path / "words.srt"), "-c:s", "srt", str(tmp_path / "words.mkv"))
    with pytest.raises(NoVideoStream, match="only: subtitle"):
        probe(str(tmp_path / "words.mkv"))


def test_a_subtitle_after_the_picture_is_no_missing_end(tmp_path: Path, plain: Path) -> None:
    """The header's end is that of the subtitle."""
    (tmp_path / "late.srt").write_text("1\n00:00:00,000 --> 00:00:09,000\nstill here\n")
    path = tmp_path / "subtitled.mkv"
    ffmpeg("-i", str(plain), "-i", str(tmp_path / "late.srt"), "-c", "copy", "-c:s", "srt", str(path))
    assert probe(str(path)).seconds == 3
