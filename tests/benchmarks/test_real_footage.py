"""The page of real footage: generated videos stand in for those of the packages, a tiny bundle for the real one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avs_core.clip import AUDIO_RATE, Clip
from avs_core.datasets.sources import fetch_package
from avs_core.models.bundle import load_bundle
from avs_core.models.segmenter import FramePrediction, ObjectMask, open_segmenter
from benchmarks.real_footage import (
    COLUMNS,
    FOOTAGE,
    LINE,
    LIT,
    SHOWN,
    SILENT,
    Footage,
    Look,
    level_db,
    look,
    named,
    painted,
    write_page,
)
from tests.media.clips import AAC, H264, ffmpeg
from tests.tiny_bundle import tiny_instances


def _video(path: Path, seconds: float) -> Path:
    picture, sound = f"testsrc=s=640x360:d={seconds}", f"sine=440:d={seconds}"
    ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, *H264, *AAC, str(path))
    return path


def _footage(name: str) -> Footage:
    return Footage(name, "thing=1", "00", f"usr/{name}.mp4", "CC0", "Somebody", f"What {name} shows.")


def _mask(object_id: int, rows: slice, category: str | None = None, sounding: bool = True) -> ObjectMask:
    mask = np.zeros((8, 8), bool)
    mask[rows] = True
    return ObjectMask(object_id, mask, 0.5, sounding, category, category_score=0.9, audio_score=0.1)


def test_the_page_shows_each_video_with_its_source_and_what_was_found(tmp_path: Path) -> None:
    videos = [(_footage(name), _video(tmp_path / f"{name}.mp4", seconds)) for name, seconds in (("a", 2.6), ("b", 1.2))]
    page = write_page(videos, tiny_instances(tmp_path / "bundle"), tmp_path / "docs" / "shots")
    text = page.read_text()
    assert page == tmp_path / "docs" / "shots.md"
    assert "| a | `a.mp4` of `thing 1` | CC0, Somebody | 2.6 s |" in text
    assert "What b shows.\n\n![b](shots/b.jpg)" in text
    with Image.open(tmp_path / "docs" / "shots" / "a.jpg") as shots:
        assert shots.size == (COLUMNS * 320, SHOWN // COLUMNS * (180 + LINE))


def test_a_private_person_is_not_drawn(tmp_path: Path) -> None:
    videos = [(replace(_footage("a"), private=True), _video(tmp_path / "a.mp4", 1.2))]
    page = write_page(videos, tiny_instances(tmp_path / "bundle"), tmp_path / "docs" / "shots")
    assert "| a | `a.mp4` of `thing 1` |" in page.read_text()
    assert "![" not in page.read_text()
    assert not list((tmp_path / "docs" / "shots").iterdir())


def test_the_frame_that_the_end_repeats_counts_once(tmp_path: Path) -> None:
    """1.6 s are looked at as two seconds: eight frames at 4 a second, the last of them again and again."""
    segmenter = open_segmenter(load_bundle(tiny_instances(tmp_path / "bundle")), "cpu")
    seen = look(_video(tmp_path / "b.mp4", 1.6), segmenter, 64)
    times = [int(seen.clip.frame_time_us[one.second, one.phase]) for one in seen.found]
    assert times == sorted(set(times))
    assert len(times) < seen.clip.frame_time_us.size
    assert seen.duration_s == pytest.approx(1.6, abs=0.05)


def test_what_sounds_is_coloured_and_objects_are_outlined() -> None:
    masks = (_mask(0, slice(0, 2)), _mask(1, slice(4, 8), "dog", sounding=False))
    pixels = np.asarray(painted(Image.new("RGB", (8, 8)), masks[:1]))
    assert pixels[0, 0].tolist() == [value // 2 for value in LIT]
    assert not pixels[2:].any()
    outlined = np.asarray(painted(Image.new("RGB", (8, 8)), masks))
    assert tuple(outlined[7, 0].tolist()) == SILENT


def _clip(waveform: np.ndarray) -> Clip:
    one = np.zeros((1, 1), np.int64)
    return Clip(np.zeros((1, 1, 8, 8, 3), np.uint8), one, one, waveform, -1.0, 8, 8, 25)


def test_categories_are_counted_by_frames_not_by_objects() -> None:
    dog, silent = _mask(1, slice(0, 2), "dog"), _mask(2, slice(4, 6), "dog", sounding=False)
    frames = ((_mask(0, slice(0, 2)), dog, silent), (silent,), (_mask(3, slice(0, 1), "cat", sounding=False),), ())
    found = tuple(FramePrediction(0, phase, masks) for phase, masks in enumerate(frames))
    seen = Look(_clip(np.zeros(AUDIO_RATE, np.float32)), 1.0, found)
    assert named(seen) == "dog 50% (sounds 25%), cat 25% (sounds 0%)"
    assert seen.lit == 0.25
    assert named(Look(seen.clip, 1.0, found[3:])) == "nothing"


def test_the_level_is_that_of_the_sound_around_a_time_of_the_video() -> None:
    """The waveform begins a second before the video."""
    tone = 0.1 * np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(AUDIO_RATE) / AUDIO_RATE)
    clip = _clip(np.concatenate([np.zeros(AUDIO_RATE), tone, np.zeros(AUDIO_RATE)]).astype(np.float32))
    assert level_db(clip, 0.5) == pytest.approx(-20, abs=0.05)
    assert level_db(clip, 1.5) == pytest.approx(-120)
    assert level_db(clip, 99.0) == pytest.approx(-120)


@pytest.mark.slow
def test_the_packages_hold_the_footage() -> None:
    for one in FOOTAGE:
        assert (fetch_package(one.package, one.sha256) / one.path).stat().st_size > 100_000
