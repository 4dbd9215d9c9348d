"""Composites as training batches, made on the fly.

Batch i depends on the seed and on i alone, so a resumed run sees what an undisturbed one would have seen.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from avs_core.audio import LOG_MEL, FrontEnd
from avs_core.clip import AUDIO_RATE
from avs_core.datasets.composites import Composer, ComposerConfig, Composite, Scene
from avs_core.datasets.sources import Sources, Split
from avs_core.errors import ConfigError, DataError

TRIES = 8
"""Other scenes that are looked at for a sound of which nothing is in the picture."""

GRID = 16
"""Pixels a side of the cells in which categories are shown: the stride of the third feature map."""

OBJECTS = 8
"""O: how many objects of a picture a batch can tell apart; composites show at most 4."""

HUSH = 1e-3
"""Amplitude of the noise that stands for silence: no recording is digitally silent."""

LOUDEST = 0.2
"""RMS of the loudest noise."""


@dataclass(frozen=True)
class Batch:
    """B clips of T seconds.

    labelled  which seconds have a mask; no loss looks at the masks and labels of the others
    labels    class of each pixel, 0 = background; None where the truth is binary
    heard     which of the K categories sound in a second, by something in the picture, off-screen, or by a foreign
              sound; None where the data does not say
    unsure    which others may sound in it: something off-screen is heard, and nobody says what; None for none
    things    what is in the picture, whether it sounds or not: the category of each cell of GRID pixels, K = none;
              None where the data does not say
    outlines  the same, object by object: the number of the one at each pixel, from 1, and 0 for none
    kinds     category of object 1, 2, …; K beyond the last one. Both None where the data does not say
    """

    frames: UInt8[Tensor, "B T H W 3"]
    sound: Float32[Tensor, "B T ..."]
    masks: Bool[Tensor, "B T H W"]
    labelled: Bool[Tensor, "B T"]
    labels: Int64[Tensor, "B T H W"] | None = None
    heard: Bool[Tensor, "B T K"] | None = None
    unsure: Bool[Tensor, "B T K"] | None = None
    things: Int64[Tensor, "B T h w"] | None = None
    outlines: UInt8[Tensor, "B T H W"] | None = None
    kinds: Int64[Tensor, "B T O"] | None = None


@dataclass(frozen=True)
class StreamConfig:
    """What a stream of composites is made of.

    size           side of the frames, pixels
    clips, frames  B and T of a batch: short clips, since neighbouring seconds look alike
    hushed         share of clips whose sound is replaced by near silence: nothing may be lit
    foreign        share of clips that get the sound of a clip with other categories: likewise
    noisy          share of the pictures of SwapBatches whose other sound is noise, see `noise`: likewise
    apart          whether the seconds of every other batch are clips of their own (T = 1), so that both lengths work
    """

    size: int = 160
    clips: int = 5
    frames: int = 2
    hushed: float = 0.08
    foreign: float = 0.12
    noisy: float = 0.0
    apart: bool = True
    seed: int = 0


class OnTheFly(Dataset[Batch]):
    """Batch number → this process's share of it. The composer is made in the process that uses it."""

    def __init__(
        self,
        sources: Sources,
        split: Split,
        config: StreamConfig,
        length: int,
        rank: int = 0,
        world: int = 1,
        front_end: FrontEnd = LOG_MEL,
    ) -> None:
        """Raises ConfigError for more processes than clips."""
        self.sources, self.split, self.config, self._length = sources, split, config, length
        self.front_end = front_end
        self._own = shared_clips(config.clips, rank, world)

    def __len__(self) -> int:
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "composer"}

    @cached_property
    def composer(self) -> Composer:
        """With its decoded sources, which don't travel to other processes."""
        return Composer(self.sources, self.split, self.composing)

    @property
    def composing(self) -> ComposerConfig:
        """Of the composer."""
        return ComposerConfig(size=self.config.size, seconds=self.config.frames)

    def first(self, number: int) -> int:
        """The seed of a batch's first clip."""
        return (self.config.seed * self._length + number) * self.config.clips


class CompositeBatches(OnTheFly):
    """Composites with their own sound; in some it is replaced by near silence or by a foreign one."""

    def __getitem__(self, number: int) -> Batch:
        clips, rng = self.config.clips, np.random.default_rng([self.config.seed, number])
        first = self.first(number)
        # The draws of the other processes' clips are made too, so that all agree on what comes next.
        draws = [self._draw(rng) for _ in range(clips)]
        batch = stack([self._clip(first + i, *draws[i]) for i in self._own])
        return apart(batch) if self.config.apart and number % 2 else batch

    def _draw(self, rng: np.random.Generator) -> tuple[float, Float32[np.ndarray, " n"] | None]:
        """What happens to a clip's sound, and the silence that it may become."""
        draw = rng.random()
        return draw, hush(self.config.frames * AUDIO_RATE, rng) if draw < self.config.hushed else None

    def _clip(self, seed: int, draw: float, silence: Float32[np.ndarray, " n"] | None) -> Batch:
        composite = self.composer.compose(seed)
        waveform, heard, masks = composite.waveform, composite.heard, composite.masks
        if silence is not None:
            waveform, heard, masks = silence, set(), np.zeros_like(masks)
        elif draw < self.config.hushed + self.config.foreign:
            scene = foreign_scene(self.composer, composite)
            if scene is not None:
                sound = self.composer.sound(scene)
                waveform, heard = sound.waveform, sound.heard(scene)
                masks = np.zeros_like(masks)
        categories = self.sources.categories
        outlines, kinds = object_labels(composite.objects, masks.shape, categories)
        return Batch(
            frames=torch.from_numpy(composite.frames)[None],
            sound=self.front_end.examples(waveform, self.config.frames)[None],
            masks=torch.from_numpy(masks)[None],
            labelled=torch.ones(1, self.config.frames, dtype=torch.bool),
            heard=heard_labels(heard, self.config.frames, categories)[None],
            things=thing_labels(composite.objects, composite.masks.shape, categories)[None],
            outlines=outlines[None],
            kinds=kinds[None],
        )


class SoundBatches(OnTheFly):
    """The sound of composites without their pictures (1×1): for the audio encoder alone."""

    @property
    def composing(self) -> ComposerConfig:
        """No picture is drawn."""
        return ComposerConfig(size=GRID, seconds=self.config.frames)

    def __getitem__(self, number: int) -> Batch:
        return stack([self._clip(self.first(number) + i) for i in self._own])

    def _clip(self, seed: int) -> Batch:
        seconds, categories = self.config.frames, self.sources.categories
        sound = self.composer.sound(scene := self.composer.plan(seed))
        return Batch(
            frames=torch.zeros(1, seconds, 1, 1, 3, dtype=torch.uint8),
            sound=self.front_end.examples(sound.waveform, seconds)[None],
            masks=torch.zeros(1, seconds, 1, 1, dtype=torch.bool),
            labelled=torch.ones(1, seconds, dtype=torch.bool),
            heard=heard_labels(sound.heard(scene), seconds, categories)[None],
            things=torch.full((1, seconds, 1, 1), len(categories)),
        )


def shared_clips(clips: int, rank: int, world: int) -> range:
    """Which clips of a batch belong to a process. Raises ConfigError where there are more processes than clips."""
    if world > clips:
        raise ConfigError(f"each process needs a clip of every batch: {clips} clips, {world} processes; use fewer")
    return range(rank, clips, world)


def foreign_scene(composer: Composer, composite: Composite) -> Scene | None:
    """A scene that sounds, with no category that is in the picture; None where a few tries find none."""
    seen = {one.category for one in composite.objects}
    for other in (composer.plan(composite.scene.seed + (1 + i) * 1_000_003) for i in range(TRIES)):
        voices = {voice.category for actor in other.actors if (voice := actor.voice)}
        if voices and not seen & (voices | {voice.category for voice in other.offscreen}):
            return other
    return None


def heard_labels(heard: set[tuple[str, int]], seconds: int, categories: Sequence[str]) -> Bool[Tensor, "T K"]:
    """(category, second) pairs as a table."""
    labels = torch.zeros(seconds, len(categories), dtype=torch.bool)
    for category, second in heard:
        labels[second, categories.index(category)] = True
    return labels


@runtime_checkable
class Thing(Protocol):
    """Something in a picture."""

    @property
    def category(self) -> str:
        """Its name."""

    @property
    def visible(self) -> Bool[np.ndarray, "T H W"]:
        """Its pixels."""


def thing_labels(things: Iterable[Thing], shape: tuple[int, ...], categories: Sequence[str]) -> Int64[Tensor, "T h w"]:
    """The category at the middle of each cell of GRID pixels, the last thing in front; len(categories) for none.

    shape  T, H, W of the pictures
    """
    middle = slice(GRID // 2, None, GRID)
    seconds, *sides = shape
    labels = torch.full((seconds, *(len(range(side)[middle]) for side in sides)), len(categories))
    for one in things:
        labels[torch.from_numpy(one.visible[:, middle, middle])] = categories.index(one.category)
    return labels


def object_labels(
    things: Iterable[Thing], shape: tuple[int, ...], categories: Sequence[str]
) -> tuple[UInt8[Tensor, "T H W"], Int64[Tensor, "T O"]]:
    """Which object is at each pixel, the last one in front, and what each is: see Batch.

    shape  T, H, W of the pictures. Raises DataError for more than OBJECTS.
    """
    outlines = torch.zeros(shape, dtype=torch.uint8)
    kinds = torch.full((shape[0], OBJECTS), len(categories))
    for number, one in enumerate(things, 1):
        if number > OBJECTS:
            raise DataError(f"a picture to learn from may hold {OBJECTS} objects, this one has more: leave some out")
        outlines[torch.from_numpy(one.visible)] = number
        kinds[:, number - 1] = categories.index(one.category)
    return outlines, kinds


def hush(samples: int, rng: np.random.Generator) -> Float32[np.ndarray, " n"]:
    """Near silence: white noise of random, low amplitude."""
    return (rng.standard_normal(samples) * HUSH * rng.random()).astype(np.float32)


def noise(samples: int, rng: np.random.Generator) -> Float32[np.ndarray, " n"]:
    """What wind, water or a cable add: noise of random level and colour, from white to brown (power ~ 1 to 1/f²)."""
    slope, level = 2 * rng.random(), HUSH * float(np.exp(rng.uniform(0, np.log(LOUDEST / HUSH))))
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** (-slope / 2)
    wave: Float32[np.ndarray, " n"] = np.fft.irfft(spectrum, samples).astype(np.float32)
    return wave * np.float32(level / wave.std())


def stack(clips: Sequence[Batch]) -> Batch:
    """Several batches as one; they tell the same things and are equally long."""
    return _combined(torch.cat, clips)


def apart(batch: Batch) -> Batch:
    """B clips of T seconds as B·T clips of one."""
    return _combined(lambda values: values[0].flatten(0, 1)[:, None], [batch])


def _combined(combine: Callable[[list[Tensor]], Tensor], clips: Sequence[Batch]) -> Batch:
    columns = {field.name: [getattr(clip, field.name) for clip in clips] for field in fields(Batch)}
    combined: dict[str, Any] = {name: None if one[0] is None else combine(one) for name, one in columns.items()}
    return Batch(**combined)


def stream(batches: Dataset[Batch], start: int, stop: int, workers: int) -> Iterator[Batch]:
    """Batches [start, stop) in order, made ahead by `workers` processes (0: in this one)."""
    loader = DataLoader(
        Subset(batches, range(start, stop)),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
    )
    yield from loader


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
