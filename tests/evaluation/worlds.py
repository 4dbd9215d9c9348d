"""A small world whose truth is plain to see and to hear: coloured squares, each colour with a tone of its own."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from avs_core.audio import Alignment, window_examples
from avs_core.datasets.labelled import ClipRef, InstanceTruth, LabelledClip, Setting
from avs_core.errors import ConfigError
from avs_core.evaluation.predict import Candidate

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
TONES = {"red": 400.0, "green": 1100.0, "blue": 2800.0}
SECONDS = 3


def tone(category: str, seconds: int = SECONDS, amplitude: float = 0.2) -> np.ndarray:
    """What a square of that colour sounds like."""
    return (amplitude * np.sin(2 * np.pi * TONES[category] * np.arange(16_000 * seconds) / 16_000)).astype(np.float32)


@dataclass(frozen=True)
class Plan:
    """A clip: squares from left to right, and which of them sound."""

    shown: tuple[str, ...]
    sounding: tuple[str, ...]
    source: str
    subsets: tuple[str, ...] = ()


PLANS = (
    Plan(("red",), ("red",), "v0"),
    Plan(("green",), ("green",), "v1"),
    Plan(("blue",), ("blue",), "v2"),
    Plan(("red", "green"), ("red",), "v3", ("silent-distractor",)),
    Plan(("green", "blue"), ("green", "blue"), "v4", ("multi",)),
    Plan(("blue",), (), "v5", ("silent",)),
    Plan(("blue", "red"), ("blue",), "v0", ("silent-distractor",)),
)


@dataclass(frozen=True)
class World:
    """A LabelledSet in memory. `hidden` leaves out what AVSBench does not tell: objects, waveforms, categories."""

    plans: tuple[Plan, ...] = PLANS
    hidden: tuple[str, ...] = ()
    setting: Setting = "ms3"
    name: str = "world"
    version: str = "1"

    @property
    def categories(self) -> tuple[str, ...]:
        return ("background", *COLOURS) if self.setting == "avss" else tuple(COLOURS)

    def splits(self) -> tuple[str, ...]:
        return ("test",)

    def clips(self, split: str) -> tuple[ClipRef, ...]:
        if split != "test":
            raise ConfigError(f"the world has the split test, got {split}")
        seconds = tuple(range(SECONDS))
        return tuple(
            ClipRef(
                f"clip{i}",
                self.setting,
                split,
                plan.source,
                SECONDS,
                seconds,
                () if "categories" in self.hidden else plan.sounding,
                len(plan.sounding),
                plan.subsets,
            )
            for i, plan in enumerate(self.plans)
        )

    def load(self, ref: ClipRef, size: int, alignment: Alignment = "official") -> LabelledClip:
        plan = self.plans[int(ref.clip_id.removeprefix("clip"))]
        picture, side = np.full((size, size, 3), 90, np.uint8), size // 4
        squares = {}
        for i, colour in enumerate(plan.shown):
            square = np.zeros((size, size), bool)
            square[side : 2 * side, (2 * i) * side : (2 * i + 1) * side] = True
            picture[square], squares[colour] = COLOURS[colour], square
        waveform = sum((tone(one) for one in plan.sounding), np.zeros(16_000 * SECONDS, np.float32))
        mask, labels = np.zeros((size, size), bool), np.zeros((size, size), np.int64)
        for one in plan.sounding:
            mask |= squares[one]
            labels[squares[one]] = 1 + list(COLOURS).index(one)
        clip = LabelledClip(
            ref=ref,
            frames=np.stack([picture] * SECONDS),
            sound=window_examples(waveform, SECONDS, alignment).numpy(),
            waveform=None if "waveform" in self.hidden else waveform,
            masks=np.stack([mask] * SECONDS),
            labelled=np.ones(SECONDS, bool),
            labels=np.stack([labels] * SECONDS) if self.setting == "avss" else None,
        )
        if "instances" in self.hidden:
            return clip
        objects = (
            InstanceTruth(i, colour, np.stack([square] * SECONDS), np.full(SECONDS, colour in plan.sounding))
            for i, (colour, square) in enumerate(squares.items())
        )
        return replace(clip, instances=tuple(objects))


def shown(frames: Tensor, colour: str) -> Tensor:
    """Where a colour is seen, (1, T, H, W)."""
    return (frames.float() - torch.tensor(COLOURS[colour]).float()).abs().sum(-1) < 30


def audible(sound: Tensor, colour: str) -> Tensor:
    """In which seconds its tone stands out, (1, T): its loudest band is well above the mean of all bands."""
    energy = sound.exp().mean(3).squeeze(2)
    band = window_examples(tone(colour, 1), 1).exp().mean((0, 1, 2)).argmax()
    return energy[..., band] > 8 * energy.mean(-1)


def eye(frames: Tensor, sound: Tensor) -> Tensor:
    """Lights everything coloured, whatever is heard: a saliency model."""
    seen = torch.stack([shown(frames, colour) for colour in COLOURS]).any(0)
    return torch.where(seen, 3.0, -3.0)


def oracle(frames: Tensor, sound: Tensor) -> Tensor:
    """Lights the colours whose tones are heard."""
    lit = torch.stack([shown(frames, c) & audible(sound, c)[..., None, None] for c in COLOURS]).any(0)
    return torch.where(lit, 3.0, -3.0)


EYE = Candidate("eye", eye, 32, "aligned", 2)
ORACLE = Candidate("oracle", oracle, 32, "aligned", 2)
