"""Composites made on the fly, offered like a data set on disk: a split is a number of seeds."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from avs_core.audio import Alignment, window_examples
from avs_core.datasets.composites import Composer, ComposerConfig, Composite, Scene
from avs_core.datasets.labelled import ClipRef, InstanceTruth, LabelledClip, Setting
from avs_core.datasets.sources import Sources, Split
from avs_core.errors import ConfigError, TrainingError

HELD_OUT_SEED = 1_000_000
"""The seed of the first clip of each split; training streams stay below."""

PLANNED = 32
"""Side of the frames of the composer that plans, pixels: what is in a clip does not depend on it."""


class ComposedSet:
    """A LabelledSet of composites. Nothing is on disk but their sources."""

    def __init__(self, sources: Sources, sizes: Mapping[Split, int], seconds: int = 5) -> None:
        """`sizes`: clips a split, of `seconds` each."""
        self.sources, self.sizes, self.seconds = sources, dict(sizes), seconds
        self._composers: dict[tuple[Split, int], Composer] = {}
        self._refs: dict[str, tuple[ClipRef, ...]] = {}

    name = "composites"
    setting: Setting = "ms3"

    @property
    def categories(self) -> tuple[str, ...]:
        """Of all splits."""
        return tuple(self.sources.categories)

    @property
    def version(self) -> str:
        """Of the catalogue of sources: with the seeds it decides the clips."""
        return hashlib.sha256(self.sources.catalogue.model_dump_json().encode()).hexdigest()[:16]

    def splits(self) -> tuple[str, ...]:
        """Those with clips."""
        return tuple(split for split, clips in self.sizes.items() if clips)

    def clips(self, split: str) -> tuple[ClipRef, ...]:
        """By seed."""
        known = {str(name): (name, clips) for name, clips in self.sizes.items()}
        if split not in known:
            raise ConfigError(f"composites have the splits {', '.join(known)}; got {split}")
        name, clips = known[split]
        if not clips:
            raise TrainingError(f"the split {split} of the composites was given no clips: ask for at least one")
        if split not in self._refs:
            planned = self._composer(name, PLANNED).plan
            seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + clips)
            self._refs[split] = tuple(_described(planned(seed), split, self.seconds) for seed in seeds)
        return self._refs[split]

    def load(self, ref: ClipRef, size: int, alignment: Alignment = "official") -> LabelledClip:
        """Compose the clip."""
        split = next(name for name in self.sizes if name == ref.split)
        return _labelled(ref, self._composer(split, size).compose(int(ref.clip_id)), alignment)

    def _composer(self, split: Split, size: int) -> Composer:
        """Composers of one split share the sources they have decoded."""
        if (split, size) not in self._composers:
            known = next((one for (of, _), one in self._composers.items() if of == split), None)
            config = ComposerConfig(size=size, seconds=self.seconds)
            made = Composer(self.sources, split, config) if known is None else known.varied(size=size)
            self._composers[split, size] = made
        return self._composers[split, size]

    def __getstate__(self) -> dict[str, Any]:
        """Without the decoded sources."""
        return self.__dict__ | {"_composers": {}}


def _described(scene: Scene, split: str, seconds: int) -> ClipRef:
    """What is meant to sound; where something stands in front of it nothing of it may be seen."""
    voices = [actor.category for actor in scene.actors if actor.voice is not None]
    subsets = {
        "single": len(voices) == 1,
        "multi": len(voices) > 1,
        "off-screen": bool(scene.offscreen),
        "silent": not voices and not scene.offscreen,
    }
    return ClipRef(
        clip_id=str(scene.seed),
        setting="ms3",
        split=split,
        source_id=str(scene.seed),
        seconds=seconds,
        labelled=tuple(range(seconds)),
        categories=tuple(dict.fromkeys(voices)),
        sources=len(voices),
        subsets=tuple(name for name, belongs in subsets.items() if belongs),
    )


def _labelled(ref: ClipRef, made: Composite, alignment: Alignment) -> LabelledClip:
    seconds = len(made.frames)
    return LabelledClip(
        ref=ref,
        frames=made.frames,
        sound=window_examples(made.waveform, seconds, alignment).numpy(),
        waveform=made.waveform,
        masks=made.masks,
        labelled=np.ones(seconds, bool),
        instances=tuple(
            InstanceTruth(number, one.category, one.visible, one.sounding) for number, one in enumerate(made.objects, 1)
        ),
    )
