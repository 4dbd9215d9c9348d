"""The command lines that people read in comments and documents, as `avs` takes them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.main import app


def parsed(line: list[str]) -> dict[str, Any]:
    """What a command line of ours sets. Raises where `avs` would refuse it."""
    return dict(app.parse_args(line, exit_on_error=False, print_error=False)[1].arguments)


def commented(path: Path) -> Iterator[list[str]]:
    """The command lines of ours in a file's comments, or in its fenced blocks."""
    text = re.sub(r"\\\n#?\s*", " ", path.read_text())
    text = "\n".join(line for line in text.splitlines() if line.startswith(("#  ", ".venv/bin/avs ")))
    for line in re.findall(r"(?:^|[\s\"/])avs ([a-z][^\n#\"]*)", text):
        yield shlex.split(line)
