"""Processes of one machine, one at a time. No Ray here."""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(name: str) -> Iterator[None]:
    """Waits until no other process of this machine has the turn of that name.

    It is a lock on an empty file, which stays: the kernel ends the turn of whoever dies.
    """
    with (Path(tempfile.gettempdir()) / f"avs-{name}.turn").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
