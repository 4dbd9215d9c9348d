"""Which code ran on what: for tracking runs, never for an archive."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def provenance() -> dict[str, str]:
    """The commit, Python's version and those of the libraries that decide results."""
    versions = {name: version(name) for name in ("torch", "ray", "av", "pyarrow", "timm")}
    return {"git_commit": _git_commit(), "python": platform.python_version(), **versions}


def _git_commit() -> str:
    """The commit of this checkout; "unknown" for an installed package, or where there is no git."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return git.stdout.strip() or "unknown"
