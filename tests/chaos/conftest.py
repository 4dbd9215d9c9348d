"""Videos in a bucket, and what a job makes of them when nobody disturbs it."""

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos import scene as scenes
from tests.chaos.scene import Outcome, Scene
from tests.s3_server import S3Server
from tests.tolls import Toll

CLIPS = 4
"""Enough for several to be in work when something strikes."""
_ARCHIVES = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def jobs_that_hear_ctrl_c() -> Iterator[None]:
    """A suite that a script put in the background would hand its deafness on to the jobs."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def videos(s3_server: S3Server, demo_clips: list[Path]) -> str:
    """Some demo clips and a broken file, in a bucket."""
    bucket = s3_server.with_bucket("chaos-videos")
    for clip in demo_clips[:CLIPS]:
        bucket.put(clip.name, clip.read_bytes())
    bucket.put("broken.mp4", b"not a video at all" * 100)
    return bucket.uri


@pytest.fixture
def reachable(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The true server, which this process and its children then find."""
    _find(s3_server, monkeypatch)
    return s3_server


def _find(server: S3Server, patch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        patch.setenv(name, value)
    patch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture(scope="session")
def undisturbed(s3_server: S3Server, videos: str) -> Iterator[tuple[Outcome, float]]:
    """What comes out, and how long it took, s."""
    archive = s3_server.with_bucket("chaos-undisturbed").uri + "/archive"
    with pytest.MonkeyPatch.context() as patch:
        _find(s3_server, patch)
        started = time.monotonic()
        flags = (*scenes.QUIETLY, *scenes.UNITS)
        scenes.end(scenes.start("segment", videos, "--archive", archive, *flags), 3)
        seconds = time.monotonic() - started
        yield scenes.outcome(archive), seconds


@pytest.fixture
def scene_at(
    videos: str, reachable: S3Server, undisturbed: tuple[Outcome, float], toll: Toll
) -> Callable[[str], Scene]:
    """A scene with its archive in that place."""
    return lambda archive: Scene(videos, archive, *undisturbed, toll, time.monotonic())


@pytest.fixture
def scene(scene_at: Callable[[str], Scene], reachable: S3Server) -> Scene:
    """One with its archive in a bucket."""
    return scene_at(reachable.with_bucket(f"chaos-{next(_ARCHIVES)}").uri + "/archive")


@pytest.fixture
def scene_on_disk(scene_at: Callable[[str], Scene], tmp_path: Path) -> Scene:
    """One with its archive on this disk; the videos are in the bucket."""
    return scene_at(str(tmp_path / "archive"))
