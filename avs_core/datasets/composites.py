"""Composite clips: real cut-outs on real photographs with real recordings, and the exact truth about them.

They measure which object sounds. About 200 objects are behind them, so a score here says nothing about
real videos.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from avs_core.datasets.rendering import Envelope, Stage, cut_out
from avs_core.datasets.scenes import Actor, ComposerConfig, Planner, Scene, Voice, scene_rng
from avs_core.datasets.soundtrack import Track, lay_track, mix_tracks, normalise_sound
from avs_core.datasets.sources import Sources, Split
from avs_core.errors import ConfigError

FRAME_PHASE = 0.9375
"""The labelled frame of second t is shown at t + 0.9375 s."""

_SEEN = 0.5
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class ObjectRecord:
    """One object of a composite.

    sounding  (T,) whether it is heard in second t
    visible   (T, H, W) its pixels in the labelled frames, after what stands in front
    """

    category: str
    image_ref: str
    sound_ref: str | None
    sounding: Bool[np.ndarray, " T"]
    visible: Bool[np.ndarray, "T H W"]


@dataclass(frozen=True)
class SceneSound:
    """What a scene sounds like: the track of each actor (None for a silent one) and of each off-screen voice; the mix.

    waveform  (16000 T,) float32 mono at 16 kHz, in [-1, 1]
    """

    tracks: list[Track | None]
    offscreen: list[Track]
    waveform: Float32[np.ndarray, " n"]

    def heard(self, scene: Scene) -> set[tuple[str, int]]:
        """(category, second) of all that sounds, in the picture and off-screen; `scene` is the one it is of."""
        names = [*(actor.category for actor in scene.actors), *(voice.category for voice in scene.offscreen)]
        pairs = zip(names, (*self.tracks, *self.offscreen), strict=True)
        return {(name, int(second)) for name, track in pairs if track for second in np.flatnonzero(track.sounding)}


@dataclass(frozen=True)
class Composite:
    """A clip with its truth.

    frames    (T, H, W, 3) uint8 RGB, shown at t + 0.9375 s
    waveform  (16000 T,) float32 mono at 16 kHz, in [-1, 1]
    masks     (T, H, W) union of the objects that sound in second t
    objects   from back to front
    heard     (category, second) of all that sounds, in the picture and off-screen
    """

    scene: Scene
    frames: UInt8[np.ndarray, "T H W 3"]
    waveform: Float32[np.ndarray, " n"]
    masks: Bool[np.ndarray, "T H W"]
    objects: tuple[ObjectRecord, ...]
    heard: set[tuple[str, int]]


class Composer:
    """Composes clips of one split. Deterministic by seed; keeps decoded sources in memory (about 150 MB)."""

    def __init__(self, sources: Sources, split: Split, config: ComposerConfig | None = None) -> None:
        self.sources, self.split, self.config = sources, split, config or ComposerConfig()
        self._sprites = _Kept(lambda ref: cut_out(sources.load_image(ref)), 512)
        self._photos = _Kept(lambda ref: sources.load_background(ref, self.config.background_px), 128)
        self._sounds = _Kept(lambda ref: normalise_sound(sources.load_sound(ref)), 512)
        self._planner = Planner(sources, split, self.config, self._ratio)

    def varied(self, **changes: Any) -> "Composer":
        """A composer with a changed config that shares the decoded sources with this one."""
        config = replace(self.config, **changes)
        if config.background_px != self.config.background_px:
            raise ConfigError("composers that share backgrounds need one background_px")
        other = Composer(self.sources, self.split, config)
        other._sprites, other._photos, other._sounds = self._sprites, self._photos, self._sounds
        return other

    def plan(self, seed: int) -> Scene:
        """What the clip of this seed contains."""
        return self._planner.plan(seed)

    def compose(self, seed: int) -> Composite:
        """The clip of this seed: labelled frames only, at `config.size`."""
        return self.stage(self.plan(seed))

    def stage(self, scene: Scene) -> Composite:
        """The labelled frames, the sound and the truth of a scene."""
        config = self.config
        sound = self.sound(scene)
        stage = self._stage(scene, config.size, config.size)
        envelopes = [_envelope(track) for track in sound.tracks]
        drawings = [
            stage.draw(t + FRAME_PHASE, float(config.seconds), envelopes, config.look) for t in range(config.seconds)
        ]
        objects = tuple(
            ObjectRecord(
                category=actor.category,
                image_ref=actor.ref,
                sound_ref=actor.voice.ref if actor.voice else None,
                sounding=track.sounding if track else np.zeros(config.seconds, bool),
                visible=np.stack([drawing.coverage[index] > _SEEN for drawing in drawings]),
            )
            for index, (actor, track) in enumerate(zip(scene.actors, sound.tracks, strict=True))
        )
        masks = np.zeros((config.seconds, config.size, config.size), bool)
        for one in objects:
            masks |= one.visible & one.sounding[:, None, None]
        frames = np.stack([drawing.picture for drawing in drawings])
        return Composite(scene, frames, sound.waveform, masks, objects, sound.heard(scene))

    def render(
        self, scene: Scene, height: int, width: int
    ) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "A H W"]]]:
        """Every frame at `config.fps`: time in seconds, picture, and each actor's visible pixels."""
        stage = self._stage(scene, height, width)
        envelopes = [_envelope(track) for track in self.sound(scene).tracks]
        for index in range(self.config.seconds * self.config.fps):
            t = index / self.config.fps
            drawing = stage.draw(t, float(self.config.seconds), envelopes, self.config.look)
            yield t, drawing.picture, drawing.coverage > _SEEN

    def sound(self, scene: Scene) -> SceneSound:
        """The tracks of a scene, and the mix of all."""
        config, rng = self.config, scene_rng(scene.seed, self.split, 1)
        voices = [actor.voice for actor in scene.actors]
        tracks = [lay_track(v, self._sounds(v.ref), config.seconds, rng) if v else None for v in voices]
        unseen = [lay_track(v, self._sounds(v.ref), config.seconds, rng) for v in scene.offscreen]
        heard = [track for track in tracks if track] + unseen
        return SceneSound(tracks, unseen, mix_tracks(heard, config.seconds, rng, config.room, config.noise_db))

    def voice(self, voice: Voice, rng: np.random.Generator) -> tuple[Float32[np.ndarray, " n"], Bool[np.ndarray, " T"]]:
        """One voice alone as a clip's whole sound, in a room and over noise, and in which seconds it is heard."""
        config = self.config
        track = lay_track(voice, self._sounds(voice.ref), config.seconds, rng)
        return mix_tracks([track], config.seconds, rng, config.room, config.noise_db), track.sounding

    def _ratio(self, ref: str) -> float:
        tall, wide, _ = self._sprites(ref).shape
        return float(wide / tall)

    def _stage(self, scene: Scene, height: int, width: int) -> Stage:
        sprites = [self._sprites(actor.ref) for actor in scene.actors]
        return Stage(scene, self._photos(scene.background.ref), sprites, height, width)


def _envelope(track: Track | None) -> Envelope:
    """Loudness of a track by time, smoothed over a tenth of a second."""
    if track is None:
        return lambda t: 0.0
    smooth = np.convolve(track.envelope, np.full(5, 0.2), "same")
    times = (np.arange(len(smooth)) + 0.5) / 50
    return lambda t: float(np.interp(t, times, smooth))


class _Kept(Generic[_Item]):
    """The last `limit` results of a function of a reference."""

    def __init__(self, load: Callable[[str], _Item], limit: int) -> None:
        self._load, self._limit = load, limit
        self._items: OrderedDict[str, _Item] = OrderedDict()

    def __call__(self, ref: str) -> _Item:
        if ref in self._items:
            self._items.move_to_end(ref)
            return self._items[ref]
        item = self._items[ref] = self._load(ref)
        if len(self._items) > self._limit:
            self._items.popitem(last=False)
        return item


__all__ = ["FRAME_PHASE", "Actor", "Composer", "ComposerConfig", "Composite", "ObjectRecord", "Scene"]
