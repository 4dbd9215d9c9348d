"""The figures of "does it listen?", from the clips' controls."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from sklearn.metrics import roc_auc_score

from avs_core.evaluation.controls import ClipControl
from avs_core.evaluation.figures import DRAWS, QUIET
from avs_core.evaluation.sounds import Kind


@dataclass(frozen=True)
class Negative:
    """Under a sound of nothing in the picture; all frames in which something seen sounds under the true sound.

    area    share of the picture that is lit: all of it wrongly; loud  share of frames with more than 1 %
    empty   share of frames without a lit pixel, as all should be; missed  that share under the true sound
    auroc   chance that a frame's highest probability is higher under the true sound than under this one
    miou    with the mask of the true sound (N); g_miou  2 P (1 - N) / (P + 1 - N), with P under the true sound
    """

    frames: int
    area: float
    loud: float
    empty: float
    missed: float
    auroc: float
    miou: float
    g_miou: float


@dataclass(frozen=True)
class PairSwitch:
    """Of the frames with two things: share that passed, mean minimum IoU, leakage, and the two other sounds."""

    clips: int
    frames: int
    passed: float
    worst_iou: float
    leak: float
    both_iou: float
    quiet_area: float


@dataclass(frozen=True)
class Swap:
    """M_J over the sounding frames: true sound, less the one under another clip's sound, and less that under none.

    Intervals are 95 %, by bootstrap over videos. A model that only looks scores 0.
    """

    frames: int
    miou: float
    delta_foreign: float
    delta_foreign_interval: tuple[float, float]
    delta_silence: float
    delta_silence_interval: tuple[float, float]


@dataclass(frozen=True)
class Listening:
    """All three tests; `unavailable` says why one could not be made. At the model's own threshold throughout."""

    pair_switch: PairSwitch | None
    negatives: dict[str, Negative]
    swap: Swap | None
    unavailable: dict[str, str]


def listening(controls: Iterable[ClipControl], seed: int = 0) -> Listening:
    """The figures; the order of the clips makes no difference."""
    clips = sorted(controls, key=lambda clip: clip.place)
    kinds: tuple[Kind, ...] = ("silence", "white", "pink")
    negatives = {str(kind): _negative(clips, kind) for kind in kinds}
    negatives["absent"] = _negative([clip for clip in clips if clip.absent], "foreign")
    pair, swap = _pair_switch(clips), _swap(clips, seed)
    found, reasons = {"pair_switch": pair, "swap": swap, **negatives}, _reasons(clips)
    return Listening(
        pair,
        {name: one for name, one in negatives.items() if one is not None},
        swap,
        {name: reasons[name] for name, one in found.items() if one is None},
    )


def _reasons(clips: Sequence[ClipControl]) -> dict[str, str]:
    """Why a test may be missing."""
    noise = "no clip has both a waveform, whose loudness noise must match, and a sounding frame"
    objects = any(clip.has_objects for clip in clips)
    return {
        "pair_switch": "no frame shows two classes, each heard alone in another clip"
        if objects
        else "the data set has no masks of single objects",
        "silence": "no frame sounds",
        "white": noise,
        "pink": noise,
        "absent": "no clip has another with a sound of classes that are certainly not in its picture",
        "swap": "no clip with a sounding frame has another video with another sound",
    }


def _negative(clips: Sequence[ClipControl], kind: Kind) -> Negative | None:
    clips = [clip for clip in clips if kind in clip.under and any(clip.sounding)]
    if not clips:
        return None
    true, other = (_frames(clips, name) for name in ("true", kind))
    P, N = float(true[0].mean()), float(other[0].mean())
    return Negative(
        frames=len(other[0]),
        area=float(other[1].mean()),
        loud=float((other[1] > QUIET).mean()),
        empty=float((other[1] == 0).mean()),
        missed=float((true[1] == 0).mean()),
        auroc=auroc(true[2], other[2]),
        miou=N,
        g_miou=2 * P * (1 - N) / (P + 1 - N) if P + 1 - N else 0.0,
    )


def _frames(clips: Sequence[ClipControl], kind: str) -> Float64[np.ndarray, "3 n"]:
    """IoU, lit share and peak of the sounding frames."""
    columns = []
    for clip in clips:
        one, sounding = clip.under[kind], np.array(clip.sounding)  # type: ignore[index]  # a Kind, spelled as text
        columns.append(np.array([one.iou, one.lit, one.peak])[:, sounding])
    return np.concatenate(columns, axis=1)


def auroc(positive: Float64[np.ndarray, " n"], negative: Float64[np.ndarray, " m"]) -> float:
    """Area under the ROC curve: P(positive > negative) + P(equal) / 2."""
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    return float(roc_auc_score(labels, np.concatenate([positive, negative])))


def _pair_switch(clips: Sequence[ClipControl]) -> PairSwitch | None:
    frames = [frame for clip in clips for frame in clip.pair]
    if not frames:
        return None
    return PairSwitch(
        clips=sum(bool(clip.pair) for clip in clips),
        frames=len(frames),
        passed=float(np.mean([frame.passed for frame in frames])),
        worst_iou=float(np.mean([frame.worst for frame in frames])),
        leak=float(np.mean([frame.leak for frame in frames])),
        both_iou=float(np.mean([frame.iou_both for frame in frames])),
        quiet_area=float(np.mean([frame.quiet_area for frame in frames])),
    )


def _swap(clips: Sequence[ClipControl], seed: int) -> Swap | None:
    clips = [clip for clip in clips if "foreign" in clip.under and any(clip.sounding)]
    if not clips:
        return None
    true, foreign, silence = (_frames(clips, kind)[0] for kind in ("true", "foreign", "silence"))
    videos = np.repeat([clip.source_id for clip in clips], [sum(clip.sounding) for clip in clips])
    return Swap(
        frames=len(true),
        miou=float(true.mean()),
        delta_foreign=float((true - foreign).mean()),
        delta_foreign_interval=_interval(true - foreign, videos, seed),
        delta_silence=float((true - silence).mean()),
        delta_silence_interval=_interval(true - silence, videos, seed),
    )


def _interval(values: Float64[np.ndarray, " n"], videos: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % of the mean, by bootstrap over videos."""
    _, video = np.unique(videos, return_inverse=True)
    sums, counts = np.bincount(video, values), np.bincount(video)
    weights = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS)
    low, high = np.quantile(weights @ sums / (weights @ counts), (0.025, 0.975))
    return float(low), float(high)
