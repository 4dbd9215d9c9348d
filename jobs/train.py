"""`avs train`: train a named recipe on labelled clips or on composites, alone or on many workers."""

import json as json_format
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from avs_core.pipelines.train_config import TrainConfig

if TYPE_CHECKING:
    from avs_core.datasets.labelled import LabelledSet
    from avs_core.training.train import Trained

Kind = Literal["auto", "s4", "ms3", "avss"]
QUIETLY = Parameter(negative="")


def train(
    recipe: str | None = None,
    /,
    *,
    config: Annotated[TrainConfig | None, Parameter(name="*")] = None,
    data: str | None = None,
    kind: Kind = "auto",
    sources: Path | None = None,
    vggish: str | None = None,
    backbone: str | None = None,
    init: str | None = None,
    audio: str | None = None,
    ear: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    feed_workers: int = 1,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    json: Annotated[bool, QUIETLY] = False,
) -> int:
    """Train a named recipe and write its bundle.

    Killed and run again, it goes on from its last checkpoint, also with another number of workers. On many machines:
    --workers N --address CLUSTER, or torchrun --nproc-per-node N -m jobs.train RECIPE …

    Parameters
    ----------
    recipe
        Its name; --list prints them.
    data
        AVSBench or a composite benchmark, on disk or s3://. Without it composites are made on the fly, for the
        recipes that know them.
    kind
        Which part of the data.
    sources
        Where the packages of photographs and recordings are unpacked (default: AVS_SOURCES, or ~/.cache/avs/sources).
    vggish
        VGGish's weights, for the recipes on AVSBench and for --ear vggish.
    backbone
        ImageNet weights of the backbone, timm's or torchvision's (default: timm fetches them).
    init
        Bundle or published checkpoint to start from.
    audio
        Bundle from whose audio encoder that of the recipe starts, instead of being trained alone first. It goes on
        learning, unless it is one that comes trained (YAMNet, VGGish, some of other packages): that is frozen.
    ear
        Audio encoder by name instead of the recipe's, also one that another package offers; instances-light… alone.
    steps
        Train that many steps instead of the recipe's.
    seed
        Of the weights and the clips.
    feed_workers
        Processes that prepare batches, for each process that trains.
    list_
        Print every recipe with a line about it.
    json
        End with one JSON line on standard output, for machines.
    """
    from avs_core.errors import ConfigError

    if list_:
        return _print_recipes()
    if recipe is None or config is None:
        raise ConfigError("training needs a recipe and a folder: avs train RECIPE --out URI; --list prints the recipes")
    from avs_core.datasets.sources import Sources, fetch_packages
    from avs_core.pipelines.train import train_jobs
    from avs_core.recipes import find_recipe
    from avs_core.training.instance_recipe import InstanceRecipe
    from avs_core.training.materials import Materials

    chosen = find_recipe(recipe)
    if ear is not None and not isinstance(chosen, InstanceRecipe):
        raise ConfigError(f"{recipe} hears with what it was published or built with: --ear is for instances-light…")
    composes = data is None and chosen.composes
    materials = Materials(
        data=None if data is None else _open(data, kind),
        sources=Sources(root=fetch_packages(sources)) if composes else None,
        vggish=vggish,
        backbone=backbone,
        init=init,
        audio=audio,
        ear=ear,
        seed=seed,
        steps=steps,
        workers=feed_workers,
    )
    version = "composed" if materials.data is None else materials.data.version
    about = {"recipe": recipe, "seed": seed, "data": data, "kind": kind, "data_version": version, "init": init}
    done = train_jobs(chosen.jobs(materials), config, about)
    _print_done(done, json)
    return 0


def _open(data: str, kind: Kind) -> "LabelledSet":
    from avs_core.datasets.avsbench.check import open_whole

    return open_whole(data, kind)


def _print_recipes() -> int:
    from avs_core.recipes import RECIPES

    width = max(len(recipe.name) for recipe in RECIPES)
    for recipe in RECIPES:
        print(f"{recipe.name:{width}}  {recipe.about}")
    return 0


def _print_done(done: "Sequence[Trained]", json: bool) -> None:
    if not done:  # not torchrun's first process
        return
    last = done[-1]
    if json:
        rows = [{"name": one.name, "step": one.step, **one.metrics, "weights": one.weights} for one in done]
        print(json_format.dumps({"phases": rows, "bundle": last.left_uri}))
        return
    for one in done:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in one.metrics.items())
        print(f"{one.name}: step {one.step}{', ' if figures else ''}{figures}; weights in {one.weights}")
    if last.left_uri:
        print(f"bundle in {last.left_uri}")


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("train")
