"""Pictures of what a model says of a clip: the frames, the truth, and the answer under each sound."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from matplotlib.figure import Figure

from avs_core.datasets.labelled import ClipRef, LabelledClip
from avs_core.evaluation.predict import Candidate, sounding_logits
from avs_core.evaluation.sounds import Kind, SoundBank

TRUTH, ANSWER = (60, 220, 90), (255, 120, 30)
"""Colours of the overlays, RGB."""

_NAMES: dict[Kind, str] = {
    "true": "its own sound",
    "silence": "silence",
    "white": "white noise",
    "foreign": "another clip's sound",
}


@dataclass(frozen=True)
class Row:
    """One row of a grid: a picture a second."""

    title: str
    pictures: UInt8[np.ndarray, "T H W 3"]


def clip_grid(place: int, clip: LabelledClip, candidate: Candidate, bank: SoundBank) -> Figure:
    """One column a second; rows: the frame, the truth, the answer under each sound that the data set can give.

    For a clip with several things also the answer to each thing alone. The probability is the strength of the colour;
    the line runs at the model's threshold.
    """
    rows = [Row("frame", clip.frames), Row("truth", _painted(clip.frames, clip.masks * 1.0, clip.masks, TRUTH))]
    sounds = [(title, bank.examples(kind, place, clip)) for kind, title in _NAMES.items()]
    seen = sorted({one.category for one in clip.instances or ()})
    if len(seen) > 1:
        solos = [(f"{name} alone", bank.solo(name, place, clip)) for name in seen]
        sounds += [(title, bank.front_end(solo)) for title, solo in solos if solo is not None]
    for title, examples in sounds:
        if examples is not None:
            probability = torch.sigmoid(sounding_logits(candidate.logits(clip.frames, examples)).float()).numpy()
            rows.append(Row(title, _painted(clip.frames, probability, probability > candidate.threshold, ANSWER)))
    return _drawn(rows, clip.ref)


def telling(refs: Sequence[ClipRef], count: int) -> list[int]:
    """Places of clips to look at: one of each subset first, then spread evenly."""
    chosen: list[int] = []
    for subset in sorted({name for ref in refs for name in ref.subsets}):
        members = [i for i, ref in enumerate(refs) if subset in ref.subsets and i not in chosen]
        chosen += members[len(members) // 2 : len(members) // 2 + 1]
    spread = np.linspace(0, len(refs) - 1, min(count, len(refs))).round().astype(int).tolist()
    chosen += [place for place in spread if place not in chosen]
    return sorted(chosen[:count])


def _painted(
    frames: UInt8[np.ndarray, "T H W 3"],
    strength: Float[np.ndarray, "T H W"],
    inside: Bool[np.ndarray, "T H W"],
    colour: tuple[int, int, int],
) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames in grey, the strength as colour, a bright line around what is inside."""
    grey = np.repeat(frames.mean(-1, keepdims=True) * 0.8, 3, -1)
    share = 0.75 * strength[..., None]
    picture = (1 - share) * grey + share * np.array(colour)
    picture[_outline(inside)] = colour
    painted: UInt8[np.ndarray, "T H W 3"] = picture.astype(np.uint8)
    return painted


def _outline(inside: Bool[np.ndarray, "T H W"]) -> Bool[np.ndarray, "T H W"]:
    """The pixels inside that have a neighbour outside."""
    padded = np.pad(inside, ((0, 0), (1, 1), (1, 1)), mode="edge")
    core = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    edge: Bool[np.ndarray, "T H W"] = inside & ~core
    return edge


def _drawn(rows: Sequence[Row], ref: ClipRef) -> Figure:
    seconds = len(rows[0].pictures)
    figure = Figure(figsize=(1.7 * seconds + 1.4, 1.7 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), seconds, squeeze=False)
    for i, row in enumerate(rows):
        for t, picture in enumerate(row.pictures):
            axes[i, t].imshow(picture)
            axes[i, t].set(xticks=[], yticks=[])
        axes[i, 0].set_ylabel(row.title, fontsize=9)
    for t in range(seconds):
        axes[0, t].set_title(f"second {t}", fontsize=9)
    sounding = ", ".join(ref.categories) or "nothing named"
    about = f" ({', '.join(ref.subsets)})" if ref.subsets else ""
    figure.suptitle(f"{ref.clip_id}: {sounding} sounds{about}", fontsize=10)
    return figure
