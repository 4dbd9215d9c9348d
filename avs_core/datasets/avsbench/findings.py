"""What can be wrong with a copy of a data set."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["missing", "broken", "contradicting", "dirt"]
"""missing, broken (can't be decoded) and contradicting files are damage; dirt is known, handled and harmless."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where (a path below the root, with `:line` in tables) and what."""

    kind: Kind
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.message}"
