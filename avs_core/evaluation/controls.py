"""Does it listen? One clip under other sounds: what each sound does to the answer, as plain values.

Negatives and swap: the clip's own picture under silence, white and pink noise and another clip's sound, each as loud
as its own. Pair switch: a picture of two things of different classes, under the sound of the one, of the other, of
both and of neither. A model that looks only answers the same each time. The figures are made in `listening`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from avs_core.datasets.labelled import LabelledClip
from avs_core.evaluation.predict import Candidate, sounding_logits
from avs_core.evaluation.sounds import Kind, SoundBank

KINDS: tuple[Kind, ...] = ("true", "silence", "white", "pink", "foreign")

SEEN = 0.005
"""Share of the picture that each thing of a pair must cover: nobody is asked to find a scrap behind another thing."""

Ask = Callable[[Float32[Tensor, "T ..."]], Float[Tensor, "T H W"]]
"""Probabilities of a clip's frames under a sound."""


@dataclass(frozen=True)
class UnderSound:
    """What one sound does to a clip, a value for each labelled frame.

    iou   with the truth of the clip's own sound, 0 where that is empty
    lit   share of the picture that is lit
    peak  highest probability
    """

    iou: tuple[float, ...]
    lit: tuple[float, ...]
    peak: tuple[float, ...]


@dataclass(frozen=True)
class PairFrame:
    """A frame with two things, A and B.

    iou_a, iou_b  of the answer to A's sound with A, to B's sound with B
    leak          share of the wrong thing that is lit, mean of both sounds
    iou_both      of the answer to both sounds with A and B together
    quiet_area    share of the picture that is lit in silence
    """

    iou_a: float
    iou_b: float
    leak: float
    iou_both: float
    quiet_area: float

    @property
    def worst(self) -> float:
        """Minimum IoU of the pair."""
        return min(self.iou_a, self.iou_b)

    @property
    def passed(self) -> bool:
        """Whether both reach 0.5. A model that lights two things of one size whatever it hears stays just below."""
        return self.worst >= 0.5


@dataclass(frozen=True)
class ClipControl:
    """One clip under all sounds that its data set can give.

    sounding  whether the truth of a labelled frame is not empty; pair  of its frames with two things
    absent    whether the foreign sound is certainly of classes that are not in the picture
    """

    place: int
    source_id: str
    sounding: tuple[bool, ...]
    under: dict[Kind, UnderSound]
    pair: tuple[PairFrame, ...]
    absent: bool
    has_objects: bool


def control_clip(place: int, clip: LabelledClip, candidate: Candidate, bank: SoundBank) -> ClipControl:
    """Ask the model again under every sound; lit means above the model's own threshold."""

    def ask(sound: Float32[Tensor, "T ..."]) -> Float[Tensor, "T H W"]:
        return torch.sigmoid(sounding_logits(candidate.logits(clip.frames, sound)).float())

    labelled, under = torch.from_numpy(clip.labelled), {}
    target = torch.from_numpy(clip.masks)[labelled]
    for kind in KINDS:
        examples = bank.examples(kind, place, clip)
        if examples is not None:
            under[kind] = _under(ask(examples)[labelled], target, candidate.threshold)
    return ClipControl(
        place=place,
        source_id=clip.ref.source_id,
        sounding=tuple(target.flatten(1).any(1).tolist()),
        under=under,
        pair=_pair_frames(place, clip, ask, candidate.threshold, bank),
        absent=bank.hears_absent(place, clip),
        has_objects=bool(clip.instances),
    )


def _under(probability: Float[Tensor, "L H W"], target: Bool[Tensor, "L H W"], threshold: float) -> UnderSound:
    lit = probability > threshold
    return UnderSound(
        iou=tuple(_iou(one, wanted) for one, wanted in zip(lit.numpy(), target.numpy(), strict=True)),
        lit=tuple(lit.double().mean((1, 2)).tolist()),
        peak=tuple(probability.double().amax((1, 2)).tolist()),
    )


def _pair_frames(place: int, clip: LabelledClip, ask: Ask, threshold: float, bank: SoundBank) -> tuple[PairFrame, ...]:
    """The frames of the pair switch; () for a clip without two things whose sounds the split has alone."""
    things = _things(clip, bank)
    if len(things) < 2:
        return ()
    (a, mask_a), (b, mask_b) = things[:2]
    frames = [t for t in np.flatnonzero(clip.labelled) if min(mask_a[t].mean(), mask_b[t].mean()) >= SEEN]
    sound_a, sound_b = bank.solo(a, place, clip), bank.solo(b, place, clip)
    if not frames or sound_a is None or sound_b is None:
        return ()
    silence = np.zeros_like(sound_a)
    on_a, on_b, on_both, on_none = (
        (ask(bank.front_end(sound)) > threshold).numpy() for sound in (sound_a, sound_b, sound_a + sound_b, silence)
    )
    return tuple(
        PairFrame(
            iou_a=_iou(on_a[t], mask_a[t]),
            iou_b=_iou(on_b[t], mask_b[t]),
            leak=float((on_a[t][mask_b[t]].mean() + on_b[t][mask_a[t]].mean()) / 2),
            iou_both=_iou(on_both[t], mask_a[t] | mask_b[t]),
            quiet_area=float(on_none[t].mean()),
        )
        for t in frames
    )


def _things(clip: LabelledClip, bank: SoundBank) -> list[tuple[str, Bool[np.ndarray, "T H W"]]]:
    """The classes that are seen and can be heard alone, the largest first; things of one class are one."""
    masks: dict[str, Bool[np.ndarray, "T H W"]] = {}
    for one in clip.instances or ():
        if bank.has_solo(one.category):
            masks[one.category] = masks.get(one.category, np.zeros_like(one.visible)) | one.visible
    return sorted(masks.items(), key=lambda item: (-int(item[1].sum()), item[0]))


def _iou(lit: Bool[np.ndarray, "H W"], wanted: Bool[np.ndarray, "H W"]) -> float:
    """I / (U + 1e-7) in double precision; 0 where nothing is wanted."""
    return float((lit & wanted).sum()) / (float((lit | wanted).sum()) + 1e-7)
