"""Where the files under test lie, and how they are read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's."""
    return ROOT


@pytest.fixture(scope="session")
def pins() -> dict[str, str]:
    """What constraints.txt pins."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


@pytest.fixture(scope="session")
def documents() -> dict[str, Any]:
    """Every YAML file of the cluster, by its path."""
    paths = [ROOT / "ray_cluster.yaml", *sorted((ROOT / "infra").rglob("*.yaml"))]
    return {str(path.relative_to(ROOT)): yaml.safe_load(path.read_text()) for path in paths}
