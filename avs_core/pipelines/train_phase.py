"""A phase of a recipe in one process: trained, tracked, and its bundle registered."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from avs_core.errors import ConfigError, StorageError
from avs_core.pipelines.provenance import provenance
from avs_core.pipelines.pyfunc import python_function
from avs_core.pipelines.train_config import TrainConfig
from avs_core.tracking import NullRun, Tracker, finishing, register_bundle, start_run
from avs_core.training.engine import Engine
from avs_core.training.job import TrainingJob
from avs_core.training.loop import LoopConfig
from avs_core.training.train import Trained, train

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """A phase as it is sent to workers.

    about    what its tracking run says beside the config
    weights  URI of what it starts from; None = the job's own
    last     whether its bundle is the one to register
    store    where MLflow's files are without a server
    """

    job: TrainingJob
    config: TrainConfig
    about: dict[str, Any]
    weights: str | None
    last: bool
    store: Path

    @property
    def loop(self) -> LoopConfig:
        """The job's, with what the command line says of it."""
        return self.job.loop.model_copy(update=self.config.of_loop())


def train_phase(phase: Phase, engine: Engine) -> Trained:
    """This process's part in a phase."""
    with _told(phase, engine) as (tracker, scratch):
        trained = train(phase.job, engine, phase.config.out, tracker, scratch, phase.weights, phase.loop)
        if engine.rank == 0 and phase.last and phase.config.register_as:
            _register(phase, trained, tracker)
    return trained


@contextmanager
def _told(phase: Phase, engine: Engine) -> Iterator[tuple[Tracker, Path]]:
    """The run that the first process tracks, and a folder that stays as long as it."""
    config, job = phase.config, phase.job
    with TemporaryDirectory(prefix="avs-train-") as scratch:
        if engine.rank or not config.tracking:
            yield NullRun(), Path(scratch)
            return
        name = f"{phase.about.get('recipe', 'train')}/{job.name}"
        with finishing(start_run(config.experiment, name, phase.store, config.tracking_uri)) as tracker:
            tracker.set_tags(provenance())
            tracker.log_params({**phase.about, "loop": phase.loop.model_dump(mode="json"), "world": engine.world})
            tracker.log_params({"config": config.model_dump(mode="json"), "device": str(engine.device)})
            yield tracker, Path(scratch)


def _register(phase: Phase, trained: Trained, tracker: Tracker) -> None:
    """A registry that can't be reached costs the registration, not the training."""
    config = phase.config
    assert config.register_as is not None
    if trained.left is None:
        raise ConfigError(f"{config.register_as} needs a bundle, and {trained.name} leaves none: drop --register")
    name, _, alias = config.register_as.partition("@")
    try:
        version = register_bundle(trained.left, python_function(), name, alias, config.tracking_uri, phase.store)
    except StorageError as fault:
        LOG.warning("the bundle in %s is not registered as %s: %s", trained.left_uri, config.register_as, fault)
    else:
        tracker.set_tags({"registered": f"models:/{name}/{version}"})
        LOG.info("registered as models:/%s/%s, alias %s", name, version, alias)
