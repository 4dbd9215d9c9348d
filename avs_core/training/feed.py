"""Labelled clips from files as training batches.

Global batch i depends on the data, the config and i alone, and the processes share it clip by clip, so a resumed run
sees what an undisturbed one would have seen, with any number of processes. Clips are read when their turn comes.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from avs_core.audio import Alignment
from avs_core.datasets.labelled import ClipRef, LabelledClip, LabelledSet
from avs_core.errors import TrainingError
from avs_core.training.data import Batch, heard_labels, object_labels, shared_clips, stack, thing_labels

OFF_SCREEN = "off-screen"
"""The subset of clips in which something is heard that is not in the picture."""


@dataclass(frozen=True)
class FeedConfig:
    """How clips become batches. The defaults are the published ones: whole clips, as they are.

    size       side of the frames, pixels
    clips      B of the whole batch, whatever the number of processes
    seconds    T: a random window with a labelled second in it; None = the whole clip
    alignment  where the sound of second k is taken
    flip       share of the clips that are mirrored
    jitter     brightness and contrast are scaled by up to 1 ± this, alike in all frames of a clip
    """

    size: int = 224
    clips: int = 4
    seconds: int | None = None
    alignment: Alignment = "official"
    flip: float = 0.0
    jitter: float = 0.0
    seed: int = 0


class LabelledBatches(Dataset[Batch]):
    """Number of a global batch → this process's share of it. Picklable if its set is."""

    def __init__(self, data: LabelledSet, split: str, config: FeedConfig, rank: int = 0, world: int = 1) -> None:
        """Raises TrainingError for a split without labelled clips, ConfigError for more processes than clips."""
        self.data, self.config = data, config
        self._own = shared_clips(config.clips, rank, world)
        refs = tuple(ref for ref in data.clips(split) if ref.labelled)
        if not refs:
            raise TrainingError(f"training needs clips with masks; {data.name} has none in its split {split}")
        # A batch is one tensor, so its clips are equally long. The published code pads 5 s to 10 s instead.
        self._groups = _by_length(refs, config.seconds)

    @property
    def epoch_steps(self) -> int:
        """Batches in which each clip comes once; a group that does not fill its last batch repeats a few."""
        return sum(-(-len(group) // self.config.clips) for group in self._groups)

    def __len__(self) -> int:
        """Of an epoch; numbers beyond go on with the next epoch, in another order."""
        return self.epoch_steps

    def __getitem__(self, number: int) -> Batch:
        refs = self.clips(number)
        return stack([self._clip(refs[i], np.random.default_rng([self.config.seed, number, i])) for i in self._own])

    def clips(self, number: int) -> list[ClipRef]:
        """All clips of a global batch."""
        epoch, place = divmod(number, self.epoch_steps)
        rng = np.random.default_rng([self.config.seed, epoch])
        batches = [batch for group in self._groups for batch in _cut(_shuffled(group, rng), self.config.clips)]
        return batches[rng.permutation(len(batches))[place]]

    def _clip(self, ref: ClipRef, rng: np.random.Generator) -> Batch:
        clip = self.data.load(ref, self.config.size, self.config.alignment)
        batch = clip_batch(clip, self.data.categories)
        if self.config.seconds is not None:
            batch = window(batch, _start(clip.labelled, self.config.seconds, rng), self.config.seconds)
        if rng.random() < self.config.flip:
            batch = mirrored(batch)
        return jittered(batch, self.config.jitter, rng) if self.config.jitter else batch


def clip_batch(clip: LabelledClip, categories: Sequence[str]) -> Batch:
    """One clip as a batch. What is heard and seen is told by its objects, and unknown to sets that have none.

    Data sets say that something is heard off-screen, not what or when: it may be anything that is not heard anyway.
    """
    heard = unsure = things = outlines = kinds = None
    if clip.instances is not None:
        pairs = {(one.category, int(t)) for one in clip.instances for t in np.flatnonzero(one.sounding)}
        heard = heard_labels(pairs, len(clip.frames), categories)[None]
        unsure = ~heard if OFF_SCREEN in clip.ref.subsets else torch.zeros_like(heard)
        things = thing_labels(clip.instances, clip.masks.shape, categories)[None]
        outlines, kinds = (one[None] for one in object_labels(clip.instances, clip.masks.shape, categories))
    return Batch(
        frames=torch.from_numpy(clip.frames)[None],
        sound=torch.from_numpy(clip.sound)[None],
        masks=torch.from_numpy(clip.masks)[None],
        labelled=torch.from_numpy(clip.labelled)[None],
        labels=None if clip.labels is None else torch.from_numpy(clip.labels)[None],
        heard=heard,
        unsure=unsure,
        things=things,
        outlines=outlines,
        kinds=kinds,
    )


def window(batch: Batch, start: int, seconds: int) -> Batch:
    """The seconds [start, start + seconds) of each clip."""
    cut: dict[str, Any] = {k: None if v is None else v[:, start : start + seconds] for k, v in vars(batch).items()}
    return Batch(**cut)


def mirrored(batch: Batch) -> Batch:
    """Left and right exchanged, in the pictures and in everything that is said of them."""
    told = {"masks": -1, "labels": -1, "things": -1, "outlines": -1, "frames": -2}
    return Batch(**{k: v.flip(told[k]) if k in told and v is not None else v for k, v in vars(batch).items()})


def jittered(batch: Batch, amount: float, rng: np.random.Generator) -> Batch:
    """Brightness and contrast changed, the same for all frames."""
    brightness, contrast = 1 + amount * rng.uniform(-1, 1, 2)
    pictures = batch.frames.float() * brightness
    mean = pictures.mean()
    return Batch(**(vars(batch) | {"frames": _bytes((pictures - mean) * contrast + mean)}))


def _bytes(pictures: Tensor) -> UInt8[Tensor, "B T H W 3"]:
    return pictures.round().clamp(0, 255).to(torch.uint8)


def _start(labelled: Bool[np.ndarray, " T"], seconds: int, rng: np.random.Generator) -> int:
    """A random window with a labelled second in it."""
    starts = [s for s in range(max(1, len(labelled) - seconds + 1)) if labelled[s : s + seconds].any()]
    return int(rng.choice(starts))


def _by_length(refs: Sequence[ClipRef], seconds: int | None) -> list[list[ClipRef]]:
    groups: dict[int, list[ClipRef]] = defaultdict(list)
    for ref in refs:
        groups[ref.seconds if seconds is None else min(seconds, ref.seconds)].append(ref)
    return [groups[length] for length in sorted(groups)]


def _shuffled(refs: list[ClipRef], rng: np.random.Generator) -> list[ClipRef]:
    return [refs[i] for i in rng.permutation(len(refs))]


def _cut(refs: list[ClipRef], clips: int) -> list[list[ClipRef]]:
    """Full batches; the last one is filled up from the front."""
    return [[refs[(first + i) % len(refs)] for i in range(clips)] for first in range(0, len(refs), clips)]
