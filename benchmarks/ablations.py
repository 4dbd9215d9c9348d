"""`python -m benchmarks.ablations --data URI --out DIR`: the ablations of paper 1 on a labelled set, in one table.

`--headline` compares the models of both papers likewise: does paper 2 follow the sound where paper 1 follows what
stands out? All get the same backbone, audio encoder, clips and steps (a stage each); `-pseudo` learns from the
proposals of the bundle `--teacher`.

Trains each recipe with each seed on the train split, all alike but for what the recipe says, chooses on val what the
recipe would (the threshold; of instance-aware models also how far to trust names and ears) and evaluates the test
split as `avs evaluate` does, audio-control tests included. Run again, it goes on where it stopped; with `--only-table`
it prints what is there.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from avs_core import storage
from avs_core.audio import Alignment
from avs_core.datasets.labelled import ClipRef, LabelledClip, LabelledSet
from avs_core.datasets.opening import open_dataset
from avs_core.errors import ConfigError
from avs_core.evaluation.examine import evaluate_set
from avs_core.evaluation.predict import Candidate, Predict, answering, finding
from avs_core.models import audio_cnn
from avs_core.models.instance_aware import InstanceAwareNet
from avs_core.pipelines.segment_config import DEFAULT_MODEL
from avs_core.recipes import (
    ABLATIONS,
    INSTANCES,
    LIGHT,
    NAMED_SOUND,
    OWN_SOUND,
    SILENT_AWARE,
    TWO_STAGE,
    UNCORRELATED,
    find_recipe,
)
from avs_core.tracking import NullRun
from avs_core.training.composites import LightRecipe
from avs_core.training.engine import Alone
from avs_core.training.evaluation import THRESHOLDS, Tally, labelled_logits, truth
from avs_core.training.held_out import HeldOut
from avs_core.training.instance_recipe import InstanceRecipe, fit_on_val
from avs_core.training.instances import InstanceTrainee
from avs_core.training.loop import load_weights
from avs_core.training.materials import Materials
from avs_core.training.network import Trainee
from avs_core.training.recipe_job import RecipeJob
from avs_core.training.train import train
from avs_core.training.two_stage_recipe import TwoStageRecipe

HEADLINE = (
    LIGHT.name,
    f"{LIGHT.name}-no-audio",
    TWO_STAGE.name,
    INSTANCES.name,
    *(one.name for one in SILENT_AWARE),
    UNCORRELATED.name,
    OWN_SOUND.name,
    NAMED_SOUND.name,
)

COLUMNS = {
    "own sound": "miou_sounding_at",
    "single": "subset.single.miou_sounding_at",
    "multi": "subset.multi.miou_sounding_at",
    "silent distractor": "subset.silent-distractor.miou_sounding_at",
    "M_F, silent distractor": "subset.silent-distractor.fscore",
    "all frames": "miou_at",
    "M_F": "fscore",
    "other sound loses": "swap.delta_foreign",
    "silence loses": "swap.delta_silence",
    "lit in silence": "negative.silence.area",
    "in white noise": "negative.white.area",
    "in pink noise": "negative.pink.area",
    "under an absent sound": "negative.absent.area",
    "pair switch": "pair_switch.passed",
    "worst of pair": "pair_switch.worst_iou",
    "objects AP": "instances.ap",
    "objects AP .5": "instances.ap50",
    "rightly named": "instances.named",
    "ECE": "instances.ece",
}
"""What the table shows of a run: heading → name in `Report.metrics`."""
FIGURES = "figures.json"


@dataclass(frozen=True)
class Terms:
    """What is the same for all recipes.

    size   side of the frames, pixels; audio  bundle whose audio encoder all start from, None = trained first
    val_clips, test_clips  at most that many, spread evenly over the split
    teacher  bundle for the recipes that learn from proposals
    """

    steps: int
    size: int
    audio: str | None
    val_clips: int
    test_clips: int
    teacher: str | None = None


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


def main() -> None:
    """Train what is missing, print the table, write it beside the runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description="Ablations on composites.")
    parser.add_argument("--data", required=True, help="root of a composite benchmark: a folder or s3://…")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, ablations.json and ablations.md")
    files = [one.name for one in ABLATIONS if not one.pairs]
    parser.add_argument("--recipes", nargs="+", default=[LIGHT.name, *files])
    parser.add_argument("--headline", action="store_true", help=f"the models of both papers: {', '.join(HEADLINE)}")
    parser.add_argument("--teacher", default=DEFAULT_MODEL, help="bundle that instances-light-pseudo learns from")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N - 1")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--size", type=int, default=256, help="side of the frames, pixels")
    parser.add_argument("--audio", default="tpavi-light", help="bundle with the audio encoder; '' = train one first")
    parser.add_argument("--val-clips", type=int, default=40)
    parser.add_argument("--test-clips", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    terms = Terms(args.steps, args.size, args.audio or None, args.val_clips, args.test_clips, args.teacher)
    recipes = HEADLINE if args.headline else args.recipes
    data = Remembered(open_dataset(args.data))
    if not args.only_table:
        for seed in range(args.seeds):
            for name in recipes:
                run(name, seed, data, terms, args.out)
    found = collect(recipes, range(args.seeds), args.out)
    Console(width=240).print(table(found))
    (args.out / "ablations.md").write_text(markdown(found), encoding="utf-8")
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
    val = HeldOut(data, terms.size, "aligned", 5, terms.val_clips)
    if isinstance(trainee, InstanceTrainee):
        fit_on_val(trainee, val, data.categories)
    predict = answering(trainee.net, trainee.audio_encoder, trainee.normalise, "cpu")
    threshold = best_threshold(predict, val)
    find = None
    if isinstance(trainee.net, InstanceAwareNet):
        find = finding(trainee.net, trainee.audio_encoder, trainee.normalise, "cpu")
    candidate = Candidate(name, predict, terms.size, "aligned", 5, threshold, find, data.categories)
    report = evaluate_set(candidate, data, "test", limit=terms.test_clips)
    figures = report.metrics() | {"threshold": threshold, "train_seconds": round(seconds)}
    logging.getLogger(__name__).info("%s, seed %d: %s", name, seed, shown(figures))
    (folder / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def trained(name: str, seed: int, data: LabelledSet, terms: Terms, folder: Path) -> Trainee:
    """A trainee with the weights that the recipe would ship; goes on from its last checkpoint."""
    recipe = sized(name, terms.size)
    teacher = terms.teacher if name == f"{INSTANCES.name}-pseudo" else None
    materials = Materials(data=data, audio=terms.audio, init=teacher, seed=seed, steps=terms.steps, workers=0)
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


def sized(name: str, size: int) -> LightRecipe | InstanceRecipe:
    """One of our recipes, with frames of `size` pixels and the audio encoder of all. Raises ConfigError for another."""
    recipe = find_recipe(name)
    if isinstance(recipe, LightRecipe):
        return replace(recipe, feed=replace(recipe.feed, size=size), bundle_size=size)
    if isinstance(recipe, TwoStageRecipe):
        feeds = replace(recipe.seen_feed, size=size), replace(recipe.feed, size=size)
        return replace(recipe, seen_feed=feeds[0], feed=feeds[1], bundle_size=size)
    if isinstance(recipe, InstanceRecipe):
        feeds = replace(recipe.seen_feed, size=size), replace(recipe.heard_feed, size=size)
        net = recipe.net.model_copy(update={"audio_channels": audio_cnn.EMBEDDING})
        ear: dict[str, Any] = {"audio_encoder": "audio_cnn", "net": net}
        return replace(recipe, seen_feed=feeds[0], heard_feed=feeds[1], bundle_size=size, **ear)
    raise ConfigError(f"{name} is not one of our recipes for composites; they are {LIGHT.name}… and instances-…")


@torch.inference_mode()
def best_threshold(predict: Predict, val: HeldOut) -> float:
    """The threshold of the highest mIoU over all labelled frames of val, under the own sound."""
    tally = Tally()
    for clip in val.load("val"):
        tally.add(labelled_logits(predict, clip, torch.from_numpy(clip.sound), val.window_s), truth(clip))
    best: float = max(THRESHOLDS, key=tally.miou)
    return best


def shown(figures: Mapping[str, float]) -> str:
    """What the table will say of one run."""
    return ", ".join(f"{heading} {figures[name]:.3f}" for heading, name in COLUMNS.items() if name in figures)


def collect(recipes: Iterable[str], seeds: Iterable[int], out: Path) -> dict[str, dict[int, dict[str, float]]]:
    """The figures that are there, by recipe and seed."""
    paths = {(name, seed): out / name / f"seed-{seed}" / FIGURES for seed in seeds for name in recipes}
    found: dict[str, dict[int, dict[str, float]]] = {}
    for (name, seed), path in paths.items():
        if path.exists():
            found.setdefault(name, {})[seed] = json.loads(path.read_text(encoding="utf-8"))
    return found


def table(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Table:
    """For the terminal: one row a recipe."""
    rows = Table("recipe", "seeds", *COLUMNS)
    rows.columns[0].no_wrap = True
    for name, cells in cells_of(found):
        rows.add_row(name, *cells)
    return rows


def markdown(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    """For documents: one column a recipe, since there are more figures than recipes."""
    heads, columns = zip(*cells_of(found), strict=True) if found else ((), ())
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for heading, *cells in zip(("seeds", *COLUMNS), *columns, strict=True):
        lines.append(f"| {heading} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cells_of(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> list[tuple[str, list[str]]]:
    """Of each recipe: its name, and its number of seeds with mean ± standard deviation of each figure."""
    cells = []
    for name, runs in found.items():
        figures = [spread([run[column] for run in runs.values() if column in run]) for column in COLUMNS.values()]
        cells.append((name, [str(len(runs)), *figures]))
    return cells


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; a dash for no value."""
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


if __name__ == "__main__":
    main()
