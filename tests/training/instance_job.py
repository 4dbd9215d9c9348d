"""The tiny instance-aware recipe in a process of torchrun: OUT, the sources' folder, their catalogue as a file."""

import sys
from dataclasses import replace
from pathlib import Path

from avs_core.datasets.sources import Catalogue, Sources
from avs_core.tracking import NullRun
from avs_core.training.engine import torchrun
from avs_core.training.materials import Materials
from avs_core.training.train import train
from tests.training.test_instances import RECIPE

SHARED = replace(RECIPE, seen=replace(RECIPE.seen, clips=4), heard=replace(RECIPE.heard, clips=2))
"""Two processes share its batches."""


def main(out: str, root: str, catalogue: str) -> None:
    """Both stages, and the bundle."""
    sources = Sources(Catalogue.model_validate_json(Path(catalogue).read_text()), Path(root))
    weights = None
    with torchrun("cpu") as engine:
        for job in SHARED.jobs(Materials(sources=sources, workers=0)):
            scratch = Path(out) / f"scratch-{engine.rank}"
            scratch.mkdir(parents=True, exist_ok=True)
            weights = train(job, engine, out, NullRun(), scratch, weights).weights


if __name__ == "__main__":
    main(*sys.argv[1:])
