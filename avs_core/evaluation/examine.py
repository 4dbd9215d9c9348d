"""A model on a split: clip by clip, then the report. Plain callables that need no Ray.

report = evaluate_set(bundle_candidate(load_bundle("tpavi-light")), open_dataset(uri), "test")
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from avs_core.datasets.labelled import ClipRef, LabelledSet, heard_by
from avs_core.errors import ConfigError
from avs_core.evaluation.controls import ClipControl, control_clip
from avs_core.evaluation.figures import (
    Figures,
    Official,
    grouped,
    intervals,
    official,
    official_classes,
    ordered,
    overall,
    precision_recall,
)
from avs_core.evaluation.instances import FrameInstances, InstanceFigures, frame_instances, instance_figures
from avs_core.evaluation.listening import Listening, listening
from avs_core.evaluation.predict import Candidate
from avs_core.evaluation.scores import ClipScore, score_clip
from avs_core.evaluation.sounds import SoundBank


@dataclass(frozen=True)
class ClipResult:
    """What one clip gave; `control` is None where no controls were asked for.

    instances  frame by frame, where the model tells objects apart and the data too
    """

    score: ClipScore
    control: ClipControl | None
    instances: tuple[FrameInstances, ...] = ()


@dataclass(frozen=True)
class Report:
    """Everything that was measured, and on what.

    official    the published figures: for AVSS the means over its classes
    overall     over all frames; `intervals` 95 % of its figures, by bootstrap over videos
    categories, sources, subsets, settings   the same figures by group; a clip of two categories is in both
    classes     AVSS: M_J of each class that was shown or said
    curve       (recall, precision) of all pixels at 255 thresholds, ascending
    instances   which objects are found and what they are called; None where the model or the data know of none
    unanswered  clips that counted as dark, since an archive holds nothing about them
    left_out    clips that are in no figure, since an archive never saw them
    """

    model: str
    threshold: float
    data: str
    data_version: str
    split: str
    clips: int
    official: Official
    overall: Figures
    intervals: dict[str, tuple[float, float]]
    settings: dict[str, Figures]
    categories: dict[str, Figures]
    sources: dict[str, Figures]
    subsets: dict[str, Figures]
    classes: dict[str, float]
    curve: tuple[tuple[float, float], ...]
    listening: Listening | None
    instances: InstanceFigures | None = None
    unanswered: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As nested plain values."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """The main figures as flat numbers, for tracking."""
        flat = {f"official.{name}": value for name, value in asdict(self.official).items()}
        flat |= {name: value for name, value in asdict(self.overall).items() if value is not None}
        for subset, figures in self.subsets.items():
            flat |= {f"subset.{subset}.{k}": v for k, v in asdict(figures).items() if v is not None}
        if self.listening is not None:
            flat |= _flat_listening(self.listening)
        if self.instances is not None:
            single = {k: v for k, v in asdict(self.instances).items() if not isinstance(v, tuple)}
            flat |= {f"instances.{name}": value for name, value in single.items()}
        return {name: float(value) for name, value in flat.items()}


class Examiner:
    """Clip → what it gave. Picklable parts; keeps the sounds it has read."""

    def __init__(
        self, candidate: Candidate, data: LabelledSet, refs: Sequence[ClipRef], controls: bool = True, seed: int = 0
    ) -> None:
        """`refs` are the clips of the split in file order: other sounds come from among them."""
        self._candidate, self._refs, self._controls = candidate, tuple(refs), controls
        self._data = heard_by(data, candidate.front_end)
        self._bank = SoundBank(self._data, self._refs, candidate.alignment, seed, candidate.front_end)

    def __call__(self, place: int) -> ClipResult:
        """Examine the clip of that number. Raises DataError, NonFiniteOutput."""
        candidate = self._candidate
        clip = self._data.load(self._refs[place], candidate.size, candidate.alignment)
        sound = torch.from_numpy(clip.sound)
        score = score_clip(place, clip, candidate.logits(clip.frames, sound), candidate.threshold)
        control = control_clip(place, clip, candidate, self._bank) if self._controls else None
        found = candidate.objects(clip.frames, sound) if clip.instances else None
        instances = () if found is None else tuple(frame_instances(clip, found, candidate.categories))
        return ClipResult(score, control, instances)


def evaluate_set(
    candidate: Candidate,
    data: LabelledSet,
    split: str,
    controls: bool = True,
    limit: int | None = None,
    seed: int = 0,
) -> Report:
    """Measure a model on a split, here and now.

    controls  whether to ask it again under other sounds, which takes about eight times as long
    limit     at most that many clips, spread evenly over the split in file order
    seed      of the noises, of which other clip is heard, and of the bootstrap

    Raises ConfigError for an unknown split, TrainingError for an empty one, DataError for a damaged clip.
    """
    refs = chosen(data, split, limit)
    examiner = Examiner(candidate, data, refs, controls, seed)
    return make_report(candidate.name, candidate.threshold, data, split, map(examiner, range(len(refs))), seed)


def chosen(data: LabelledSet, split: str, limit: int | None = None) -> tuple[ClipRef, ...]:
    """The clips that are looked at: those with labels, at most `limit`, spread evenly, in file order."""
    if limit is not None and limit < 1:
        raise ConfigError(f"a limit must be >= 1 clip, got {limit}")
    refs = data.clips(split)
    if limit is None or len(refs) <= limit:
        return refs
    return tuple(refs[i] for i in np.linspace(0, len(refs) - 1, limit).round().astype(int))


def make_report(
    model: str,
    threshold: float,
    data: LabelledSet,
    split: str,
    results: Iterable[ClipResult],
    seed: int = 0,
    left_out: Sequence[str] = (),
) -> Report:
    """Put the results together; their order makes no difference. Raises TrainingError for none."""
    found = list(results)
    scores = ordered(result.score for result in found)
    controls = [result.control for result in found if result.control is not None]
    figures = official(scores)
    classes: dict[str, float] = {}
    if data.setting == "avss" and any(score.classes for score in scores):
        figures, classes = official_classes(scores, data.categories)
    return Report(
        model=model,
        threshold=threshold,
        data=data.name,
        data_version=data.version,
        split=split,
        clips=len(scores),
        official=figures,
        overall=overall(scores),
        intervals=intervals(scores, seed),
        settings=grouped(scores, lambda score: [score.setting]),
        categories=grouped(scores, lambda score: score.categories),
        sources=grouped(scores, lambda score: [] if score.sources is None else [str(score.sources)]),
        subsets=grouped(scores, lambda score: score.subsets),
        classes=classes,
        curve=precision_recall(scores),
        listening=listening(controls, seed) if controls else None,
        instances=instance_figures(
            frame for result in sorted(found, key=lambda one: one.score.place) for frame in result.instances
        ),
        unanswered=tuple(score.clip_id for score in scores if not score.answered),
        left_out=tuple(left_out),
    )


def _flat_listening(found: Listening) -> dict[str, float]:
    flat: dict[str, float] = {}
    parts: dict[str, Any] = {"pair_switch": found.pair_switch, "swap": found.swap}
    parts |= {f"negative.{kind}": one for kind, one in found.negatives.items()}
    for name, part in parts.items():
        if part is not None:
            flat |= {f"{name}.{k}": float(v) for k, v in asdict(part).items() if not isinstance(v, tuple)}
    return flat
