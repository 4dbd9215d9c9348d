"""Fixtures for every test: a real S3 server where one is asked for."""

import itertools
from collections.abc import Iterator

import pytest

from tests import s3_server as seaweed

_BUCKETS = itertools.count()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.S3Server]:
    """A real S3 server for the whole session."""
    with seaweed.running(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty bucket, with the environment that opens it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return s3_server.make_bucket(f"bucket-{next(_BUCKETS)}")
