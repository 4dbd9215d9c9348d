from pathlib import Path

import pytest


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.integration)])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an archive may be made, on disk and on a real S3 server."""
    if request.param == "disk":
        return str(tmp_path / "archive")
    return str(request.getfixturevalue("s3_bucket")) + "/archives/one"
