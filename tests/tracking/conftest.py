"""One local store for all tests: making its database takes seconds."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_server_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, with a space in its name; the first run makes the database."""
    return tmp_path_factory.mktemp("a store") / "runs"
