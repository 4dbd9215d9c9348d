"""Fixtures for every test: the demo clips, and a real S3 server where one is asked for."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import avs_core
from tests import forgetful_s3
from tests.s3_server import S3Server, Seaweed
from tests.tolls import pytest_terminal_summary, toll

__all__ = ["pytest_terminal_summary", "toll"]

_BUCKETS = itertools.count()

# No test is timed: a busy machine must not fail one.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def demo_clips() -> list[Path]:
    """The clips that ship with the package, sorted by name."""
    return sorted((Path(avs_core.__file__).parent / "builtin/demo").glob("*.mp4"))


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server for the whole session, for tests that kill it and start it again."""
    server = Seaweed(tmp_path_factory.mktemp("seaweedfs"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def s3_server(seaweed: Seaweed) -> S3Server:
    """Where that server is."""
    return seaweed.server


@pytest.fixture
def s3(s3_server: S3Server) -> S3Server:
    """That server with an empty bucket; its `environment` is for child processes."""
    return s3_server.with_bucket(f"bucket-{next(_BUCKETS)}")


@pytest.fixture
def s3_bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty bucket that this process can open: its environment is set."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return s3.uri


@pytest.fixture
def forgetful_bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of an empty bucket in a store that ignores conditional writes."""
    with forgetful_s3.in_front_of(s3) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        yield server.uri
