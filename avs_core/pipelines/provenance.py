"""Which code ran on what: for tracking runs and dead letters, never for what an archive holds of videos."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from avs_core.archive.layout import Software
from avs_core.media.versions import decoder_versions


def provenance() -> dict[str, str]:
    """The commit, Python's version and those of the libraries that decide results."""
    versions = {name: version(name) for name in ("torch", "ray", "av", "pyarrow", "timm")}
    return {"git_commit": _git_commit(), "python": platform.python_version(), **versions}


def software() -> Software:
    """What dead letters are signed with: the version of this package (and commit, in a checkout), and the decoders'."""
    commit = _git_commit()
    code = version("avs-on-ray") if commit == "unknown" else f"{version('avs-on-ray')}+g{commit[:12]}"
    return Software(code=code, decoder=decoder_versions())


def _git_commit() -> str:
    """The commit of this checkout; "unknown" for an installed package, or where there is no git."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return git.stdout.strip() or "unknown"
