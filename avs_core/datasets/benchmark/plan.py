"""Which clips a benchmark has: a value that depends on scale and seed alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from avs_core.datasets.sources import Split
from avs_core.errors import ConfigError

Scale = Literal["small", "full"]
Tree = Literal["s4", "ms3"]
Kind = Literal["alone", "distractor", "companion", "pair", "off-screen", "chorus", "crowd", "silence"]

SECONDS = 5
SIZE = 224
"""Side of the frames and masks in the trees, pixels."""

FPS = 16
"""Of the videos: frame 15 of each second is shown at exactly 0.9375 s, the labelled moment."""

ATTEMPTS = 200
"""Seeds that a clip may try until its scene is of its kind; no two clips share one."""

CLIPS: Mapping[Scale, Mapping[Split, int]] = {
    "small": {"train": 240, "val": 60, "test": 120, "unseen": 40},
    "full": {"train": 4000, "val": 400, "test": 800, "unseen": 200},
}

SHARES: Mapping[Tree, Mapping[Kind, float]] = {
    "s4": {"alone": 0.06, "distractor": 0.10, "companion": 0.10, "pair": 0.04, "off-screen": 0.03},
    "ms3": {
        "chorus": 0.17,
        "crowd": 0.12,
        "distractor": 0.08,
        "companion": 0.12,
        "pair": 0.06,
        "off-screen": 0.06,
        "silence": 0.06,
    },
}
"""Share of each kind among all clips of a split.

As many clips have silent objects that are smaller than the sources (companion, chorus) as have larger ones
(distractor, crowd): size and place in front must not tell what sounds.
"""

_COMMON: dict[str, Any] = {
    "seconds": SECONDS,
    "fps": FPS,
    "silent_share": 0.0,
    "distractor_share": 0.0,
    "larger_share": 0.0,
    "two_share": 0.0,
    "twin_share": 0.0,
    "offscreen_share": 0.0,
    "most_sources": 3,
    "mirror_twins": True,
    "silent_soundable": True,
}

COMPOSED: Mapping[Kind, Mapping[str, Any]] = {
    "alone": _COMMON,
    "distractor": _COMMON | {"distractor_share": 1.0, "larger_share": 0.9, "min_objects": 2},
    "companion": _COMMON | {"distractor_share": 1.0, "min_objects": 2},
    "pair": _COMMON | {"twin_share": 1.0, "tied_share": 0.7, "larger_share": 0.5},
    "off-screen": _COMMON | {"offscreen_share": 1.0, "distractor_share": 0.5, "larger_share": 0.5},
    "chorus": _COMMON | {"two_share": 1.0, "distractor_share": 0.6},
    "crowd": _COMMON | {"two_share": 1.0, "distractor_share": 1.0, "larger_share": 0.9, "min_objects": 3},
    "silence": _COMMON | {"silent_share": 1.0, "distractor_share": 0.75, "larger_share": 0.5},
}
"""How the composer is set for each kind."""


@dataclass(frozen=True)
class ClipSpec:
    """One clip before it is composed; it tries seeds from `seed` on."""

    clip_id: str
    setting: Tree
    split: Split
    kind: Kind
    seed: int

    def composed(self) -> dict[str, Any]:
        """The composer's settings. In S4 the source sounds through the clip; in MS3 sources start and stop."""
        changes = dict(COMPOSED[self.kind])
        changes["spans"] = "whole" if self.setting == "s4" else "parts"
        if self.kind == "off-screen" and self.setting == "ms3":
            changes["silent_share"] = 0.5
        return changes


@dataclass(frozen=True)
class Plan:
    """A whole benchmark before anything is composed."""

    scale: str
    seed: int
    clips: tuple[ClipSpec, ...]


def make_plan(scale: Scale, seed: int) -> Plan:
    """The clips of a scale, in the order of the metadata files. Raises ConfigError for a negative seed."""
    return plan_clips(scale, CLIPS[scale], seed)


def plan_clips(name: str, counts: Mapping[Split, int], seed: int) -> Plan:
    """The same for any number of clips a split."""
    if seed < 0:
        raise ConfigError(f"a seed must be >= 0, got {seed}")
    clips: list[ClipSpec] = []
    for split, count in counts.items():
        numbers: dict[Tree, int] = {"s4": 0, "ms3": 0}
        for setting, kind in _kinds(count):
            numbers[setting] += 1
            clip_seed = seed * 10**9 + len(clips) * ATTEMPTS
            clips.append(ClipSpec(f"{setting}_{split}_{numbers[setting]:05d}", setting, split, kind, clip_seed))
    return Plan(name, seed, tuple(clips))


def _kinds(count: int) -> list[tuple[Tree, Kind]]:
    """`count` kinds in their shares, spread evenly: any stretch of the list has about the same mixture."""
    shares = [(setting, kind, share) for setting, kinds in SHARES.items() for kind, share in kinds.items()]
    owed = [0.0] * len(shares)
    chosen: list[tuple[Tree, Kind]] = []
    for _ in range(count):
        owed = [debt + share for debt, (_, _, share) in zip(owed, shares, strict=True)]
        most = max(range(len(shares)), key=owed.__getitem__)
        owed[most] -= 1
        chosen.append(shares[most][:2])
    return chosen
