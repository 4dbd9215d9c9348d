"""Pictures with two sounds each: their own, and that of something else in them. Sight alone cannot tell which is lit.

Most composites show one thing that sounds among things that could, so a net that lights what could sound does well
without listening. Here every picture comes twice in a batch with different masks, and the difference is in the sound.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float32

from avs_core.datasets.composites import ComposerConfig, Composite, ObjectRecord
from avs_core.datasets.scenes import Voice
from avs_core.training.data import (
    Batch,
    OnTheFly,
    apart,
    foreign_scene,
    heard_labels,
    hush,
    noise,
    object_labels,
    stack,
    thing_labels,
)

CROWDED, SILENT = 0.95, 0.05
"""Shares of pictures with things that stay silent under the own sound, and of those in which nothing sounds."""

_APART = 5_000_000
"""Seeds from here on, so that no picture is that of a plain stream."""
_VISIBLE = 0.004
_PAUSES = (0.05, 0.2, 0.5)
_SPEED = 0.12

Sound = tuple[Float32[np.ndarray, " n"], set[tuple[str, int]], Bool[np.ndarray, "T H W"]]
"""A waveform, the (category, second) heard in it, and the pixels that it lights."""


class SwapBatches(OnTheFly):
    """Batch number → this process's share of it: `config.clips` pictures with their sounds, then again with others.

    The other sound is that of a thing in the picture that is silent under the own one; in a share `hushed` it is near
    silence, in a share `noisy` noise, and in a share `foreign` the sound of another scene, as it is where nothing else
    in the picture could sound. These three light nothing.
    """

    @property
    def composing(self) -> ComposerConfig:
        """Nearly all pictures hold silent things, nearly all clips sound."""
        return replace(super().composing, distractor_share=CROWDED, silent_share=SILENT)

    def __getitem__(self, number: int) -> Batch:
        first = _APART + self.first(number)
        pairs = [self._pair(first + i) for i in self._own]
        batch = stack([own for own, _ in pairs] + [other for _, other in pairs])
        return apart(batch) if self.config.apart and number % 2 else batch

    def _pair(self, seed: int) -> tuple[Batch, Batch]:
        clip = self.composer.compose(seed)
        own = self._batch(clip, (clip.waveform, clip.heard, clip.masks))
        return own, self._batch(clip, self._other(clip, np.random.default_rng([seed, 1])))

    def _other(self, clip: Composite, rng: np.random.Generator) -> Sound:
        draw, silent = rng.random(), self._silent(clip)
        dark = np.zeros_like(clip.masks)
        quiet = self.config.hushed + self.config.noisy
        if draw < quiet:
            make = hush if draw < self.config.hushed else noise
            return make(len(clip.waveform), rng), set(), dark
        if silent and draw >= quiet + self.config.foreign:
            return self._voiced(silent[int(rng.integers(len(silent)))], rng)
        scene = foreign_scene(self.composer, clip)
        if scene is None:
            return hush(len(clip.waveform), rng), set(), dark
        sound = self.composer.sound(scene)
        return sound.waveform, sound.heard(scene), dark

    def _silent(self, clip: Composite) -> list[ObjectRecord]:
        """What is well seen, says nothing, and could."""
        sounding = {one.category for one in clip.objects if one.sounding.any()}
        return [
            one
            for one in clip.objects
            if one.category not in sounding
            and one.visible.mean() > _VISIBLE
            and self.sources.sounds(self.split, one.category)
        ]

    def _voiced(self, one: ObjectRecord, rng: np.random.Generator) -> Sound:
        """One of the object's recordings, all the time."""
        refs = self.sources.sounds(self.split, one.category)
        voice = some_voice(one.category, refs[int(rng.integers(len(refs)))], (0.0, float(self.config.frames)), rng)
        waveform, sounding = self.composer.voice(voice, rng)
        heard = {(one.category, int(second)) for second in np.flatnonzero(sounding)}
        return waveform, heard, one.visible & sounding[:, None, None]

    def _batch(self, clip: Composite, sound: Sound) -> Batch:
        """The clip's pictures with a sound."""
        waveform, heard, masks = sound
        seconds, categories = self.config.frames, self.sources.categories
        outlines, kinds = object_labels(clip.objects, masks.shape, categories)
        return Batch(
            frames=torch.from_numpy(clip.frames)[None],
            sound=self.front_end.examples(waveform, seconds)[None],
            masks=torch.from_numpy(masks)[None],
            labelled=torch.ones(1, seconds, dtype=torch.bool),
            heard=heard_labels(heard, seconds, categories)[None],
            things=thing_labels(clip.objects, clip.masks.shape, categories)[None],
            outlines=outlines[None],
            kinds=kinds[None],
        )


def some_voice(category: str, ref: str, span: tuple[float, float], rng: np.random.Generator) -> Voice:
    """A recording at full level from span[0] to span[1], seconds, at a random pitch and with random pauses."""
    gap, speed = float(rng.choice(_PAUSES)), float(np.exp(rng.normal(0.0, _SPEED)))
    return Voice(category=category, ref=ref, start=span[0], stop=span[1], gap=gap, speed=speed, gain=1.0)
