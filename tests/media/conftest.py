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
