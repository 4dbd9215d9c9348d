"""`python -m benchmarks.ablations --data URI --out DIR`: the ablations of paper 1 on a labelled set, in one table.

Trains each recipe with each seed on the train split, all alike but for what the recipe says, chooses the threshold on
val and scores the test split: M_J over the frames in which something seen sounds, with the clip's own sound, with near
silence and with another clip's sound, always against the truth of the own sound. Run again, it goes on where it
stopped; with `--only-table` it prints what is there.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from avs_core import storage
from avs_core.audio import Alignment, window_examples
from avs_core.clip import AUDIO_RATE
from avs_core.datasets.labelled import ClipRef, LabelledClip, LabelledSet
from avs_core.datasets.opening import open_dataset
from avs_core.errors import ConfigError
from avs_core.metrics import frame_ious
from avs_core.recipes import ABLATIONS, LIGHT, find_recipe
from avs_core.tracking import NullRun
from avs_core.training.composites import LightRecipe
from avs_core.training.data import hush
from avs_core.training.engine import Alone
from avs_core.training.evaluation import THRESHOLDS, Predict, labelled_logits, truth
from avs_core.training.held_out import HeldOut, predictor
from avs_core.training.loop import load_weights
from avs_core.training.materials import Materials
from avs_core.training.network import Trainee
from avs_core.training.recipe_job import RecipeJob
from avs_core.training.train import train

SOUNDS = ("own", "none", "wrong")
GROUPS = ("all", "single", "multi", "silent-distractor")
FIGURES = "figures.json"


@dataclass(frozen=True)
class Terms:
    """What is the same for all recipes.

    size   side of the frames, pixels; audio  bundle whose audio encoder all start from, None = trained first
    val_clips, test_clips  at most that many, spread evenly over the split
    """

    steps: int
    size: int
    audio: str | None
    val_clips: int
    test_clips: int


class Remembered:
    """A labelled set that reads each clip once: all runs look at the same ones, and the set is small."""

    def __init__(self, data: LabelledSet) -> None:
        self._data, self._clips = data, dict[tuple[ClipRef, int, Alignment], LabelledClip]()
        self.name, self.setting, self.version = data.name, data.setting, data.version
        self.categories, self.splits, self.clips = data.categories, data.splits, data.clips

    def load(self, ref: ClipRef, size: int, alignment: Alignment = "official") -> LabelledClip:
        """As the set has it."""
        if (ref, size, alignment) not in self._clips:
            self._clips[ref, size, alignment] = self._data.load(ref, size, alignment)
        return self._clips[ref, size, alignment]


@dataclass(frozen=True)
class FrameScore:
    """IoU of one labelled test frame under one sound. `groups`: those of GROUPS that its clip belongs to."""

    sound: str
    groups: tuple[str, ...]
    sounding: bool
    iou: float


def main() -> None:
    """Train what is missing, print the table, write it beside the runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description="Ablations on composites.")
    parser.add_argument("--data", required=True, help="root of a composite benchmark: a folder or s3://…")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, ablations.json and ablations.md")
    files = [one.name for one in ABLATIONS if not one.pairs]
    parser.add_argument("--recipes", nargs="+", default=[LIGHT.name, *files])
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N - 1")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=128, help="side of the frames, pixels")
    parser.add_argument("--audio", default="tpavi-light", help="bundle with the audio encoder; '' = train one first")
    parser.add_argument("--val-clips", type=int, default=40)
    parser.add_argument("--test-clips", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    terms = Terms(args.steps, args.size, args.audio or None, args.val_clips, args.test_clips)
    data = Remembered(open_dataset(args.data))
    if not args.only_table:
        for seed in range(args.seeds):
            for name in args.recipes:
                run(name, seed, data, terms, args.out)
    found = collect(args.recipes, range(args.seeds), args.out)
    Console(width=140).print(table(found))
    report = {"terms": vars(terms), "data": data.name, "data_version": data.version, "runs": found}
    (args.out / "ablations.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def run(name: str, seed: int, data: LabelledSet, terms: Terms, out: Path) -> None:
    """Train one recipe with one seed and write its figures, unless they are there."""
    folder = out / name / f"seed-{seed}"
    if (folder / FIGURES).exists():
        return
    started = time.monotonic()
    trainee = trained(name, seed, data, terms, folder)
    seconds = time.monotonic() - started
    val, test = (HeldOut(data, terms.size, "aligned", 5, clips) for clips in (terms.val_clips, terms.test_clips))
    with torch.inference_mode():
        threshold = best_threshold(trainee, val)
        scores = list(score(predictor(trainee), test, threshold))
    figures = summary(scores) | {"threshold": threshold, "train_seconds": round(seconds)}
    (folder / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def trained(name: str, seed: int, data: LabelledSet, terms: Terms, folder: Path) -> Trainee:
    """A trainee with the weights that the recipe would ship; goes on from its last checkpoint."""
    recipe = find_recipe(name)
    if not isinstance(recipe, LightRecipe):
        raise ConfigError(f"{name} is not one of our recipes for composites; those are {LIGHT.name} and its ablations")
    recipe = replace(recipe, feed=replace(recipe.feed, size=terms.size), bundle_size=terms.size)
    materials = Materials(data=data, audio=terms.audio, seed=seed, steps=terms.steps, workers=0)
    weights = None
    for job in recipe.jobs(materials):
        assert isinstance(job, RecipeJob)
        with tempfile.TemporaryDirectory() as scratch:
            # the figures come from this script, and the last weights are taken: no validation on the way
            silent = replace(job, held_out=None, leave=None)
            done = train(silent, Alone("cpu"), str(folder), NullRun(), Path(scratch), weights)
        weights = done.weights
    trainee = silent.build()
    load_weights(trainee, storage.read_bytes(done.weights))
    return trainee.eval()


def best_threshold(trainee: Trainee, val: HeldOut) -> float:
    """The threshold of the highest mIoU over all labelled frames of val, under the own sound."""
    predict = predictor(trainee)
    sums = dict.fromkeys(THRESHOLDS, 0.0)
    for clip in val.load("val"):
        logits = labelled_logits(predict, clip, torch.from_numpy(clip.log_mel), val.window_s)
        for threshold in THRESHOLDS:
            sums[threshold] += float(frame_ious(logits - logit(threshold), truth(clip)).sum())
    return max(THRESHOLDS, key=lambda threshold: sums[threshold])


def logit(probability: float) -> float:
    """The logit of a probability."""
    return float(torch.logit(torch.tensor(probability, dtype=torch.float64)))


def score(predict: Predict, test: HeldOut, threshold: float) -> Iterator[FrameScore]:
    """Every labelled frame of test under each sound. A clip's wrong sound is that of the clip before it."""
    refs = test.refs("test")
    before = test.data.load(refs[-1], test.size, test.alignment)
    for number, ref in enumerate(refs):
        clip = test.data.load(ref, test.size, test.alignment)
        wanted = truth(clip)
        for sound, log_mel in zip(SOUNDS, sounds(clip, before, number), strict=True):
            logits = labelled_logits(predict, clip, log_mel, test.window_s) - logit(threshold)
            for iou, mask in zip(frame_ious(logits, wanted).tolist(), wanted, strict=True):
                yield FrameScore(sound, groups(ref), bool(mask.any()), iou)
        before = clip


def sounds(clip: LabelledClip, before: LabelledClip, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-mels of the clip's own sound, of near silence, and of the other clip's sound."""
    seconds = len(clip.frames)
    silence = hush(seconds * AUDIO_RATE, np.random.default_rng(number))
    other = before.log_mel[np.resize(np.arange(len(before.log_mel)), seconds)]
    return torch.from_numpy(clip.log_mel), window_examples(silence, seconds), torch.from_numpy(other)


def groups(ref: ClipRef) -> tuple[str, ...]:
    """Those of GROUPS that a clip belongs to."""
    return tuple(group for group in GROUPS if group == "all" or group in ref.subsets)


def summary(scores: Sequence[FrameScore]) -> dict[str, float]:
    """Mean IoU by sound and group over sounding frames, over all frames, and how many there are."""
    found: dict[str, float] = {}
    for sound in SOUNDS:
        heard = [one for one in scores if one.sound == sound]
        for group in GROUPS:
            ious = [one.iou for one in heard if one.sounding and group in one.groups]
            found[f"{sound}/{group}"] = round(mean(ious), 4)
            found[f"frames/{group}"] = len(ious)
        found[f"{sound}/every-frame"] = round(mean(one.iou for one in heard), 4)
    found["frames/every-frame"] = len(scores) / len(SOUNDS)
    return found


def mean(values: Iterable[float]) -> float:
    """The mean; NaN of nothing."""
    kept = list(values)
    return statistics.fmean(kept) if kept else float("nan")


def collect(recipes: Iterable[str], seeds: Iterable[int], out: Path) -> dict[str, dict[int, dict[str, float]]]:
    """The figures that are there, by recipe and seed."""
    paths = {(name, seed): out / name / f"seed-{seed}" / FIGURES for seed in seeds for name in recipes}
    found: dict[str, dict[int, dict[str, float]]] = {}
    for (name, seed), path in paths.items():
        if path.exists():
            found.setdefault(name, {})[seed] = json.loads(path.read_text(encoding="utf-8"))
    return found


def table(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Table:
    """One row a recipe: mean over its seeds, ± standard deviation where there are several."""
    columns = [f"own/{group}" for group in GROUPS] + ["own/every-frame", "none/all", "wrong/all", "train_seconds"]
    shown = Table("recipe", "seeds", *columns)
    for name, runs in sorted(found.items()):
        cells = [spread([run[column] for run in runs.values()]) for column in columns]
        shown.add_row(name.removeprefix(f"{LIGHT.name}-"), str(len(runs)), *cells)
    return shown


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{deviation}"


if __name__ == "__main__":
    main()
