"""A folder of test videos, made once a session, and a decoder without a guard."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avs_core.clip import Clip, Unit, VideoRef
from avs_core.media.clips import decode_clip
from avs_core.media.config import DecodeConfig
from avs_core.media.probe import probe
from tests.media.clips import Recipe

MAX_PIXELS = 10**8
Decode = Callable[..., Clip]


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the test videos are made."""
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def plain(videos: Path) -> Path:
    """Three seconds of H.264 and AAC in an MP4."""
    return Recipe("plain.mp4").make(videos)


def unit_of(path: Path, start_s: int, stop_s: int) -> Unit:
    """A unit of a file."""
    return Unit(VideoRef(str(path), path.stat().st_size if path.exists() else 0, "test"), start_s, stop_s)


def decode_whole(path: Path, **config: object) -> Clip:
    """All seconds of a file, in this process."""
    seconds = probe(str(path)).seconds
    return decode_clip(unit_of(path, 0, seconds), DecodeConfig(**config), MAX_PIXELS)  # type: ignore[arg-type]


def positions(clip: Clip) -> list[int]:
    """The clip's frame indices in one row."""
    return np.asarray(clip.frame_index).reshape(-1).tolist()


def cuts_agree(path: Path, config: DecodeConfig) -> None:
    """Units of 5, 7 and 20 s against the whole 40 s: all byte for byte, frames counted from the unit before."""
    whole = decode_clip(unit_of(path, 0, 40), config, MAX_PIXELS)
    for seconds in (5, 7, 20):
        before, flags = 0, set()
        for start in range(0, 40, seconds):
            cut = decode_clip(unit_of(path, start, stop := min(start + seconds, 40)), config, MAX_PIXELS)
            assert np.array_equal(cut.frames, whole.frames[start:stop])
            assert np.array_equal(cut.frame_time_us, whole.frame_time_us[start:stop])
            assert np.array_equal(cut.frame_index + before, whole.frame_index[start:stop])
            first = round((cut.audio_start_s - whole.audio_start_s) * 16_000)
            assert len(cut.waveform) == (stop - start + (config.rate > 1)) * 16_000
            assert np.array_equal(cut.waveform, whole.waveform[first : first + len(cut.waveform)])
            assert (cut.shown is None) == (whole.shown is None)
            before, flags = before + (cut.shown or 0), flags | {*cut.flags}
        assert (before, flags) == (whole.shown or 0, {*whole.flags})
