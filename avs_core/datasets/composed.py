"""Composites made on the fly, offered like a data set on disk: a split is a number of seeds."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from avs_core.audio import Alignment, window_examples
from avs_core.datasets.composites import Composer, ComposerConfig, Composite
from avs_core.datasets.labelled import ClipRef, InstanceTruth, LabelledClip, Setting
from avs_core.datasets.sources import Sources, Split
from avs_core.errors import ConfigError, TrainingError

HELD_OUT_SEED = 1_000_000
"""The seed of the first clip of each split; training streams stay below."""


class ComposedSet:
    """A LabelledSet of composites. Nothing is on disk but their sources."""

    def __init__(self, sources: Sources, sizes: Mapping[Split, int], seconds: int = 5) -> None:
        """`sizes`: clips a split, of `seconds` each."""
        self.sources, self.sizes, self.seconds = sources, dict(sizes), seconds
        self._composers: dict[tuple[Split, int], Composer] = {}

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
        _, clips = known[split]
        if not clips:
            raise TrainingError(f"the split {split} of the composites was given no clips: ask for at least one")
        seconds = tuple(range(self.seconds))
        seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + clips)
        return tuple(ClipRef(str(seed), "ms3", split, str(seed), self.seconds, seconds) for seed in seeds)

    def load(self, ref: ClipRef, size: int, alignment: Alignment = "official") -> LabelledClip:
        """Compose the clip."""
        split = next(name for name in self.sizes if name == ref.split)
        if (split, size) not in self._composers:
            config = ComposerConfig(size=size, seconds=self.seconds)
            self._composers[split, size] = Composer(self.sources, split, config)
        return _labelled(ref, self._composers[split, size].compose(int(ref.clip_id)), alignment)

    def __getstate__(self) -> dict[str, Any]:
        """Without the decoded sources."""
        return self.__dict__ | {"_composers": {}}


def _labelled(ref: ClipRef, made: Composite, alignment: Alignment) -> LabelledClip:
    seconds = len(made.frames)
    return LabelledClip(
        ref=ref,
        frames=made.frames,
        log_mel=window_examples(made.waveform, seconds, alignment).numpy(),
        waveform=made.waveform,
        masks=made.masks,
        labelled=np.ones(seconds, bool),
        instances=tuple(
            InstanceTruth(number, one.category, one.visible, one.sounding) for number, one in enumerate(made.objects, 1)
        ),
    )
