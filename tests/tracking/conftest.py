"""One local store for all tests: making its database takes seconds."""

from pathlib import Path

import pyarrow as pa
import pytest

from avs_core.tracking import PythonFunction


@pytest.fixture(autouse=True)
def _no_server_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, with a space in its name; the first run makes the database."""
    return tmp_path_factory.mktemp("a store") / "runs"


@pytest.fixture(scope="session")
def function() -> PythonFunction:
    """What could be told of a bundle that nobody loads."""
    return PythonFunction(
        loader="no.such.module",
        inputs=pa.schema([pa.field("video_uri", pa.string(), nullable=False)]),
        outputs=pa.schema([pa.field("object_id", pa.int16(), nullable=False), ("category", pa.string())]),
        example=({"video_uri": "a.mp4"},),
        settings={"rate": 1, "threshold": None},
        requirements=("avs-on-ray==0.1.0",),
    )
