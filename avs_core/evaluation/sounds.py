"""Other sounds for a clip: none, noise, another clip's, or that of one class alone.

All go through the front end of the clip's own sound, and are as loud as it (root mean square over the clip).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from avs_core.audio import LOG_MEL, Alignment, FrontEnd
from avs_core.clip import AUDIO_RATE
from avs_core.datasets.labelled import ClipRef, LabelledClip, LabelledSet
from avs_core.evaluation.scores import described

Kind = Literal["true", "silence", "white", "pink", "foreign"]
"""foreign: another video's sound; of classes not known to be in the picture if possible, else not to sound in it."""

FAINTEST = 0.01
"""Loudness that a substitute has at least: a clip in which nothing is heard must not make all noises silent."""

_GLANCE = 32
"""Side of the frames that are read when only a clip's sound is wanted, pixels."""

_KEPT = 256


@dataclass(frozen=True)
class Heard:
    """The sound of a clip: a waveform, and its examples, which are all that a data set without waveforms has.

    sounding  the seconds in which something in its picture is heard
    """

    waveform: Float32[np.ndarray, " n"] | None
    sound: Float32[np.ndarray, "T ..."]
    sounding: tuple[int, ...]


class SoundBank:
    """The sounds of a split, by what is heard in them. Reads them when they are asked for and keeps some."""

    def __init__(
        self,
        data: LabelledSet,
        refs: Sequence[ClipRef],
        alignment: Alignment,
        seed: int = 0,
        front_end: FrontEnd = LOG_MEL,
    ) -> None:
        """`front_end` is what made the sound of the data."""
        self._data, self._alignment, self._seed, self._front_end = data, alignment, seed, front_end
        self._refs = tuple(refs)
        self._solos: dict[str, list[ClipRef]] = {}
        for ref in self._refs:
            if len(ref.categories) == 1 and "off-screen" not in ref.subsets:
                self._solos.setdefault(ref.categories[0], []).append(ref)
        self._read = lru_cache(_KEPT)(self._load)

    def examples(self, kind: Kind, place: int, clip: LabelledClip) -> Float32[Tensor, "T ..."] | None:
        """The clip's examples under a sound of that kind; None where the data set can't give it."""
        if kind == "true":
            return torch.from_numpy(clip.sound)
        seconds = len(clip.frames)
        if kind == "silence":
            return self.front_end(np.zeros(seconds * AUDIO_RATE, np.float32))
        if kind == "foreign":
            other = self._foreign(place, clip)
            return None if other is None else self._as_of(clip, other)
        if clip.waveform is None:
            return None
        rng = np.random.default_rng([self._seed, place, kind == "pink"])
        return self.front_end(at_loudness(_NOISES[kind](seconds * AUDIO_RATE, rng), loudness(clip.waveform)))

    def solo(self, category: str, place: int, clip: LabelledClip) -> Float32[np.ndarray, " n"] | None:
        """The sound of one category alone, as long and as loud as the clip; None where no other clip has it.

        Of a clip in which only this category sounds; its seconds without it are cut out and the rest is repeated.
        """
        options = [ref for ref in self._solos.get(category, []) if ref.source_id != clip.ref.source_id]
        for ref in _rotated(options, self._seed + place):
            heard = self._read(ref)
            if heard.waveform is not None and heard.sounding:
                parts = [heard.waveform[s * AUDIO_RATE : (s + 1) * AUDIO_RATE] for s in heard.sounding]
                long = np.resize(np.concatenate(parts), len(clip.frames) * AUDIO_RATE)
                return at_loudness(long, _wanted_loudness(clip))
        return None

    def has_solo(self, category: str) -> bool:
        """Whether some clip holds that category's sound alone."""
        return category in self._solos

    def front_end(self, waveform: Float32[np.ndarray, " n"]) -> Float32[Tensor, "T ..."]:
        """One example a second, as the clip's own were made."""
        return self._front_end.examples(waveform, len(waveform) // AUDIO_RATE, self._alignment)

    def hears_absent(self, place: int, clip: LabelledClip) -> bool:
        """Whether the clip's foreign sound is certainly of classes that are not in its picture.

        Never where nobody tells of all objects in it, silent ones too, or of what the other clip's sound is.
        """
        other = self._foreign(place, clip)
        if other is None or clip.instances is None:
            return False
        return bool(other.categories) and not _named(clip) & set(other.categories)

    def _foreign(self, place: int, clip: LabelledClip) -> ClipRef | None:
        """A clip of another source in which something sounds, and nothing that is seen or at least that sounds here.

        As far as the data say: where they tell of no objects it may well be of a silent thing in the picture.
        """
        others = [
            ref
            for ref in _rotated(self._refs, place + 1 + self._seed)
            if ref.source_id != clip.ref.source_id and not _UNFIT & set(ref.subsets) and ref.sources != 0
        ]
        for taken in (_named(clip), set(described(clip).categories)):
            for ref in others:
                if not taken & set(ref.categories):
                    return ref
        return None

    def _as_of(self, clip: LabelledClip, other: ClipRef) -> Float32[Tensor, "T ..."]:
        heard, seconds = self._read(other), len(clip.frames)
        if heard.waveform is None:
            return torch.from_numpy(heard.sound[np.resize(np.arange(len(heard.sound)), seconds)])
        return self.front_end(at_loudness(np.resize(heard.waveform, seconds * AUDIO_RATE), _wanted_loudness(clip)))

    def _load(self, ref: ClipRef) -> Heard:
        clip = self._data.load(ref, _GLANCE, self._alignment)
        if clip.instances:
            sounding = np.any([one.sounding for one in clip.instances], axis=0)
        else:
            sounding = clip.masks.any((1, 2)) | ~clip.labelled
        return Heard(clip.waveform, clip.sound, tuple(np.flatnonzero(sounding).tolist()))


def loudness(waveform: Float[np.ndarray, " n"]) -> float:
    """Root mean square, in [0, 1]."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) if len(waveform) else 0.0


def at_loudness(waveform: Float[np.ndarray, " n"], wanted: float) -> Float32[np.ndarray, " n"]:
    """The same sound at another root mean square, at least `FAINTEST`; silence stays silence.

    Peaks beyond [-1, 1] are kept: clipping would add a sound of its own.
    """
    now = loudness(waveform)
    return (waveform * (max(wanted, FAINTEST) / now if now else 1.0)).astype(np.float32)


def white(samples: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Equal power at each frequency."""
    return rng.standard_normal(samples)


def pink(samples: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Power falls as 1 / f, as it roughly does in real backgrounds."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    return np.fft.irfft(spectrum, samples)


_NOISES = {"white": white, "pink": pink}

_UNFIT = {"silent", "off-screen"}
"""Clips that are no foreign sound: in one nothing is heard, in the other also what its categories do not tell."""


def _named(clip: LabelledClip) -> set[str]:
    """The classes that are known to sound or to be seen."""
    return set(clip.ref.categories) | {one.category for one in clip.instances or ()}


def _wanted_loudness(clip: LabelledClip) -> float:
    return FAINTEST if clip.waveform is None else loudness(clip.waveform)


def _rotated(refs: Sequence[ClipRef], start: int) -> Sequence[ClipRef]:
    """All of them, from another one on for each clip, so that not all clips hear the same."""
    start = start % len(refs) if refs else 0
    return [*refs[start:], *refs[:start]]
