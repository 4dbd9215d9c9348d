"""Training jobs on the engine that was asked for: alone, under torchrun, or on Ray with workers that may die.

Each phase of a recipe is one training (`avs_core.training.train`), one tracking run, and on Ray one TorchTrainer.
Checkpoints are committed by the first worker, the same on every engine, and Ray is told of them: a training may stop
on one engine and go on under another.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avs_core import storage
from avs_core.pipelines.train_config import TrainConfig
from avs_core.pipelines.train_phase import Phase, train_phase
from avs_core.training.engine import Alone, torchrun
from avs_core.training.job import TrainingJob, require_whole
from avs_core.training.train import Trained


def train_jobs(jobs: Sequence[TrainingJob], config: TrainConfig, about: Mapping[str, Any]) -> list[Trained]:
    """Train the phases of a recipe in order, each from the chosen weights of the one before.

    about  what the tracking runs say beside the config; "recipe" begins their names

    Under torchrun the first process returns what was trained, the others an empty list. Raises what `train` raises,
    ConfigError for a setting that one of the phases can't have before any begins, and TrainingError when Ray's workers
    died more than `max_failures` times.
    """
    # workers stand in folders of their own
    config = config.model_copy(update={"out": storage.normalise(config.out)})
    for job in jobs:
        require_whole(job, job.loop.model_copy(update=config.of_loop()))
    kind = config.chosen_engine()
    if kind == "alone":
        return _in_order(jobs, config, about, lambda phase: train_phase(phase, Alone(config.device)))
    if kind == "torchrun":
        with torchrun(config.device) as engine:
            done = _in_order(jobs, config, about, lambda phase: train_phase(phase, engine))
            return done if engine.rank == 0 else []
    # here, because importing Ray Train takes seconds
    from avs_core.pipelines.cluster import connected
    from avs_core.pipelines.train_on_ray import train_on_ray

    with connected(config.address):
        return _in_order(jobs, config, about, train_on_ray)


def _in_order(
    jobs: Sequence[TrainingJob], config: TrainConfig, about: Mapping[str, Any], run: Callable[[Phase], Trained]
) -> list[Trained]:
    store, done = Path("runs" if config.out.startswith("s3://") else config.out).absolute(), list[Trained]()
    for job in jobs:
        weights = done[-1].weights if done else None
        done.append(run(Phase(job, config, dict(about), weights, len(done) == len(jobs) - 1, store)))
    return done
