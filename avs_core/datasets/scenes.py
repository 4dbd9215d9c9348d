"""What is in a composite clip, before anything is drawn or mixed: a value drawn from a seed.

Scene units: y runs from 0 (top) to 1 (bottom) of the frame, x from 0 to the frame's aspect; times are seconds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from avs_core.datasets.sources import Background, Place, Sources, Split
from avs_core.errors import ConfigError

_Option = TypeVar("_Option")

_CROWDED = 0.4
"""A silent object that overlaps others by more than this share of its box is left out: it would hide them."""

Spans = Literal["mixed", "whole", "parts"]

_SPLIT_SALT = {"train": 0, "val": 1, "test": 2, "unseen": 3}


@dataclass(frozen=True)
class ComposerConfig:
    """How clips are composed. Shares are probabilities in [0, 1].

    size, seconds     training frames are size × size; a clip has one labelled frame a second
    fps               of full-rate rendering
    silent_share      clips in which nothing sounds
    distractor_share  clips that also show objects that stay silent
    larger_share      of those distractors, how many stand in front and are large
    two_share         clips with two sounding objects
    twin_share        clips with a silent object of the sounding one's class
    offscreen_share   clips in which something sounds that is not in the picture
    tied_share        objects whose motion follows their sound
    most_sources      how many objects may sound in clips with several
    spans             when a voice is heard: "whole" clip, "parts" of it, "mixed" of both
    mirror_twins      a class with one picture in the split is its own silent twin (else such clips have none)
    silent_soundable  silent objects only of classes that sound in other clips of the split
    aspects           width / height of the frame before it is squeezed to a square
    background_px     longest side of a background in memory
    look, room        whether to add camera effects; reverberation and equalisation
    noise_db          how far below the sound the background noise may lie; None: no noise
    """

    size: int = 224
    seconds: int = 5
    fps: int = 25
    min_objects: int = 1
    max_objects: int = 4
    silent_share: float = 0.08
    distractor_share: float = 0.75
    larger_share: float = 0.5
    two_share: float = 0.2
    twin_share: float = 0.06
    offscreen_share: float = 0.04
    tied_share: float = 0.35
    most_sources: int = 2
    spans: Spans = "mixed"
    mirror_twins: bool = False
    silent_soundable: bool = False
    aspects: tuple[float, ...] = (16 / 9, 16 / 9, 4 / 3, 1.0)
    background_px: int = 640
    look: bool = True
    room: bool = True
    noise_db: tuple[float, float] | None = (6.0, 40.0)

    def __post_init__(self) -> None:
        if self.size < 16 or self.seconds < 1 or self.fps < 1 or self.background_px < 16:
            raise ConfigError(f"size and background_px must be >= 16, seconds and fps >= 1, got {self}")
        if not 1 <= self.min_objects <= self.max_objects or self.most_sources < 2:
            raise ConfigError(f"1 <= min_objects <= max_objects and most_sources >= 2 must hold, got {self}")
        if not self.aspects or min(self.aspects) < 0.3 or max(self.aspects) > 3:
            raise ConfigError(f"aspects must lie in [0.3, 3], got {self.aspects}")
        if self.noise_db and not self.noise_db[0] <= self.noise_db[1]:
            raise ConfigError(f"noise_db must be (lowest, highest), got {self.noise_db}")
        for name in ("silent", "distractor", "larger", "two", "twin", "offscreen", "tied"):
            share = getattr(self, f"{name}_share")
            if not 0 <= share <= 1:
                raise ConfigError(f"{name}_share must lie in [0, 1], got {share}")


@dataclass(frozen=True)
class Voice:
    """What an object utters between `start` and `stop` (s): one of the recordings, repeated after `gap` (s)."""

    category: str
    ref: str
    start: float
    stop: float
    gap: float
    speed: float
    gain: float


@dataclass(frozen=True)
class Motion:
    """Drift in scene units a second; bob as a share of the object's height; sway in radians."""

    drift_x: float = 0.0
    drift_y: float = 0.0
    bob: float = 0.0
    sway: float = 0.0
    hertz: float = 1.0
    phase: float = 0.0
    tied: bool = False


@dataclass(frozen=True)
class Actor:
    """One cut-out: its foot (or middle, in the air) stands at (x, y) at half time, `height` of the frame tall."""

    category: str
    ref: str
    place: Place
    x: float
    y: float
    height: float
    flip: bool
    gains: tuple[float, float, float]
    motion: Motion
    sunk: float = 0.0
    voice: Voice | None = None


@dataclass(frozen=True)
class Camera:
    """Which part of the background is shown (share of its height, left and lower edge) and how it moves."""

    share: float
    left: float
    low: float
    pan_x: float
    pan_y: float
    zoom: float
    shake: float


@dataclass(frozen=True)
class Look:
    """Sun (shadow's shear, squash and strength) and sensor (gains, gamma, blur and noise in pixels / levels, JPEG)."""

    shear: float
    squash: float
    shadow: float
    gains: tuple[float, float, float]
    gamma: float
    blur: float
    noise: float
    quality: int


@dataclass(frozen=True)
class Scene:
    """Everything a clip is made of; actors from back to front."""

    seed: int
    background: Background
    aspect: float
    camera: Camera
    look: Look
    actors: tuple[Actor, ...]
    offscreen: tuple[Voice, ...] = ()


def scene_rng(seed: int, split: Split, stream: int) -> np.random.Generator:
    """One independent stream of random numbers for each (seed, split, use)."""
    return np.random.default_rng([seed, _SPLIT_SALT[split], stream])


class Planner:
    """Draws scenes from the sources of one split; `ratio` gives width / height of a cut-out by its reference.

    Raises ConfigError if the split has nothing that sounds.
    """

    def __init__(self, sources: Sources, split: Split, config: ComposerConfig, ratio: Callable[[str], float]) -> None:
        self.sources, self.split, self.config, self._ratio = sources, split, config, ratio
        self._soundable = sources.soundable(split)
        self._visible = tuple(name for name in sources.categories if sources.images(split, name))
        if not self._soundable or not sources.backgrounds(split):
            raise ConfigError(f"split {split!r} needs a class with picture and sound, and a background; it lacks one")

    def plan(self, seed: int) -> Scene:
        """The scene of a seed; the same for the same sources, split and config."""
        rng = scene_rng(seed, self.split, 0)
        lead = _pick(rng, self._soundable)
        lead_ref = _pick(rng, self.sources.images(self.split, lead))
        background = self._background(rng, lead, lead_ref)
        aspect = float(_pick(rng, self.config.aspects))
        camera = _camera(rng)
        cast = self._cast(rng, (lead, lead_ref), background)
        actors: list[Actor] = []
        for category, ref, sounds in cast:
            actor = self._actor(rng, category, ref, sounds, _Stand(background, camera, aspect), actors)
            spot, ratio = (actor.x, actor.y, actor.height), self._ratio(ref)
            hides = _crowding(spot, ratio, actors) > _CROWDED * ratio * actor.height**2
            if sounds or not hides or len(actors) < self.config.min_objects:
                actors.append(actor)
        actors.sort(key=lambda actor: (actor.place == "border", actor.y if actor.place != "air" else 0.0))
        offscreen = self._offscreen(rng, {actor.category for actor in actors})
        return Scene(seed, background, aspect, camera, _look(rng, background), tuple(actors), offscreen)

    def _background(self, rng: np.random.Generator, category: str, ref: str) -> Background:
        """A place where the class may stand; any place if the split has none."""
        places = self.sources.backgrounds(self.split)
        fitting = [place for place in places if self._fits(category, ref, place)]
        return _pick(rng, fitting or places)

    def _fits(self, category: str, ref: str, background: Background) -> bool:
        catalogue = self.sources.catalogue
        if catalogue.places.get(ref) == "air":
            return background.setting != "indoor"
        return background.setting in catalogue.classes[category].settings

    def _cast(
        self, rng: np.random.Generator, lead: tuple[str, str], background: Background
    ) -> list[tuple[str, str, bool]]:
        """(class, picture, sounds) of every object; silent ones never of a sounding class, except for twins."""
        config = self.config
        silent = rng.random() < config.silent_share
        cast = [(*lead, not silent)]
        room = config.max_objects
        if room >= 2 and not silent and rng.random() < config.two_share:
            more = 1 if config.most_sources == 2 else int(rng.integers(1, config.most_sources))
            cast += self._others(rng, cast, background, self._soundable, more, sounds=True)
        if len(cast) < room and not silent and rng.random() < config.twin_share:
            twins = [ref for ref in self.sources.images(self.split, lead[0]) if ref != lead[1]]
            twins = twins or [lead[1]] * config.mirror_twins
            cast += [(lead[0], _pick(rng, twins), False)] if twins else []
        wanted = max(0, config.min_objects - len(cast))
        if len(cast) < room and rng.random() < config.distractor_share:
            wanted = max(wanted, int(rng.integers(1, room - len(cast) + 1)))
        pool = self._soundable if config.silent_soundable else self._visible
        return cast + self._others(rng, cast, background, pool, wanted, sounds=False)

    def _others(
        self,
        rng: np.random.Generator,
        cast: list[tuple[str, str, bool]],
        background: Background,
        pool: tuple[str, ...],
        count: int,
        sounds: bool,
    ) -> list[tuple[str, str, bool]]:
        """Up to `count` objects of other classes that may stand here."""
        taken = {name for name, _, _ in cast}
        choices = [
            (name, ref)
            for name in pool
            if name not in taken
            for ref in self.sources.images(self.split, name)
            if self._fits(name, ref, background)
        ]
        found: list[tuple[str, str, bool]] = []
        while choices and len(found) < count:
            name = _pick(rng, sorted({name for name, _ in choices}))
            found.append((name, _pick(rng, [ref for other, ref in choices if other == name]), sounds))
            choices = [choice for choice in choices if choice[0] != name]
        return found

    def _actor(
        self, rng: np.random.Generator, category: str, ref: str, sounds: bool, stand: "_Stand", others: list[Actor]
    ) -> Actor:
        entry, place = self.sources.catalogue.classes[category], self.sources.catalogue.places.get(ref, "ground")
        in_water = stand.background.setting == "water" and place == "ground"
        near = not sounds and rng.random() < self.config.larger_share
        ratio = self._ratio(ref)
        spots = [_spot(rng, entry.height, place, stand, near, ratio) for _ in range(12)]
        x, y, height = min(spots, key=lambda spot: _crowding(spot, ratio, others))
        gains = tuple(float(g) for g in rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3))
        return Actor(
            category=category,
            ref=ref,
            place="water" if in_water else place,
            x=x,
            y=y,
            height=height,
            flip=bool(rng.random() < 0.5),
            gains=(gains[0], gains[1], gains[2]),
            motion=_motion(rng, place, sounds and rng.random() < self.config.tied_share),
            sunk=float(rng.uniform(0.15, 0.25)) if in_water else 0.04 if place == "water" else 0.0,
            voice=self._voice(rng, category) if sounds else None,
        )

    def _voice(self, rng: np.random.Generator, category: str) -> Voice:
        seconds = float(self.config.seconds)
        cut = float(rng.uniform(0.25, 0.75) * seconds)
        whole, parts = [(0.0, seconds)], [(cut, seconds), (0.0, cut), (cut / 2, cut / 2 + seconds / 2)]
        spans: dict[Spans, list[tuple[float, float]]] = {"whole": whole, "parts": parts, "mixed": whole * 5 + parts}
        start, stop = _pick(rng, spans[self.config.spans])
        return Voice(
            category=category,
            ref=_pick(rng, self.sources.sounds(self.split, category)),
            start=start,
            stop=stop,
            gap=float(rng.choice([0.05, 0.2, 0.5, 1.0]) * rng.uniform(0.6, 1.4)),
            speed=float(np.exp(rng.normal(0.0, 0.08))),
            gain=float(10 ** (rng.uniform(-8, 4) / 20)),
        )

    def _offscreen(self, rng: np.random.Generator, shown: set[str]) -> tuple[Voice, ...]:
        unseen = [name for name in self._soundable if name not in shown]
        if unseen and rng.random() < self.config.offscreen_share:
            return (self._voice(rng, _pick(rng, unseen)),)
        return ()


@dataclass(frozen=True)
class _Stand:
    """Where things may stand in the part of the background that is shown."""

    background: Background
    camera: Camera
    aspect: float

    @property
    def ground(self) -> float:
        """Height of the farthest standing place in scene units, at most 0.9."""
        top = 1 - self.camera.low - self.camera.share
        return min(max((self.background.ground - top) / self.camera.share, 0.3), 0.9)


def _pick(rng: np.random.Generator, options: Sequence[_Option]) -> _Option:
    return options[int(rng.integers(len(options)))]


def _camera(rng: np.random.Generator) -> Camera:
    moving = rng.random() < 0.6
    return Camera(
        share=float(rng.uniform(0.8, 0.95)),
        left=float(rng.random()),
        low=float(rng.uniform(0.0, 0.04)),
        pan_x=float(rng.normal(0, 0.015)) if moving else 0.0,
        pan_y=float(rng.normal(0, 0.004)) if moving else 0.0,
        zoom=float(rng.normal(0, 0.01)) if moving else 0.0,
        shake=float(rng.choice([0.0, 0.0015, 0.004])),
    )


def _look(rng: np.random.Generator, background: Background) -> Look:
    indoor = background.setting == "indoor"
    gains = rng.uniform(0.85, 1.12) * rng.uniform(0.94, 1.06, 3)
    return Look(
        shear=float(rng.uniform(-1.5, 1.5)),
        squash=float(rng.choice([-1, 1]) * rng.uniform(0.12, 0.3)),
        shadow=0.0 if indoor else float(max(0.0, rng.uniform(-0.15, 0.4))),
        gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        gamma=float(np.exp(rng.normal(0, 0.12))),
        blur=float(max(0.0, rng.normal(0.1, 0.45))),
        noise=float(abs(rng.normal(0, 5.0))),
        quality=int(rng.integers(35, 92)),
    )


def _spot(
    rng: np.random.Generator, heights: tuple[float, float], place: Place, stand: _Stand, near: bool, ratio: float
) -> tuple[float, float, float]:
    """(x, y, height) of an object: the nearer, the lower in the frame and the larger."""
    low, high = heights
    depth = float(rng.uniform(0.6, 1.0) if near else rng.uniform(0.0, 0.9))
    height = low + (high - low) * (0.15 + 0.85 * depth) * float(rng.uniform(0.85, 1.1))
    height = min(height, 0.85 * stand.aspect / ratio)
    margin = min(0.35, 0.4 * height * ratio / stand.aspect)
    x = stand.aspect * float(rng.uniform(margin, 1 - margin))
    if place == "air":
        return x, float(rng.uniform(0.15, 0.55)), height
    if place == "border":
        return x, 1.06, height
    return x, stand.ground + (0.97 - stand.ground) * depth, height


def _crowding(spot: tuple[float, float, float], ratio: float, others: list[Actor]) -> float:
    """How much an object here would overlap the others' boxes (taking them as square), in scene units²."""
    x, y, height = spot
    total = 0.0
    for other in others:
        across = min(x + height * ratio / 2, other.x + other.height / 2) - max(
            x - height * ratio / 2, other.x - other.height / 2
        )
        down = min(y, other.y) - max(y - height, other.y - other.height)
        total += max(0.0, across) * max(0.0, down)
    return total


def _motion(rng: np.random.Generator, place: Place, tied: bool) -> Motion:
    if not tied and rng.random() < 0.25:
        return Motion()
    reach = 0.08 if place == "air" else 0.0 if place == "border" else 0.03
    return Motion(
        drift_x=float(rng.normal(0, reach)),
        drift_y=float(rng.normal(0, 0.015)) if place == "air" else 0.0,
        bob=float(abs(rng.normal(0.02 if tied else 0.0, 0.02))),
        sway=float(abs(rng.normal(0.03 if tied else 0.0, 0.025))),
        hertz=float(rng.uniform(0.4, 2.5)),
        phase=float(rng.uniform(0, 2 * math.pi)),
        tied=tied,
    )
