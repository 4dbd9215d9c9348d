"""A phase of a recipe on Ray Train: workers that may die or change in number, and an engine for each."""

import os
from collections.abc import Mapping
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train.v2._internal.exceptions import RayTrainError
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

from avs_core import storage
from avs_core.errors import ConfigError, StorageError, TrainingError
from avs_core.pipelines.train_config import TrainConfig, worker_count
from avs_core.pipelines.train_phase import Phase, train_phase
from avs_core.training.engine import PATIENCE, Distributed
from avs_core.training.train import Trained

STAY = "RAY_CHDIR_TO_TRIAL_DIR"
"""0: workers stand where the user stands, since paths on a command line are relative to it."""

ROOM_TRIES = 60
"""How often workers are waited for, a minute each: a cluster that grows needs some, one that has lost a node one."""

LOST = (RuntimeError, ray.exceptions.RayError, RayTrainError)
PASSING = (StorageError, OSError, *LOST)
"""What may be gone the next time: a store, a node, a worker, and the connection of the others to it."""

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray's own list of checkpoints, which it rewrites in place."""


def train_on_ray(phase: Phase) -> Trained:
    """A phase on Ray workers. Raises what stopped it."""
    os.environ.setdefault(STAY, "0")
    config = phase.config
    filesystem, path = storage.arrow_filesystem(config.out)
    # a driver killed while Ray wrote its list would leave half of one; ours are committed, and need no list
    storage.delete(storage.join(config.out, phase.job.name, SNAPSHOT))
    trainer = TorchTrainer(
        _work,
        train_loop_config={"phase": phase},
        scaling_config=_scaling(config),
        torch_config=ray.train.torch.TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
        run_config=RunConfig(
            name=phase.job.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=config.max_failures, controller_failure_limit=ROOM_TRIES),
            callbacks=[StopAtFaults()],
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        result: Any = trainer.fit()  # typed as the result of Ray Train V1
    except ray.train.TrainingFailedError as failure:
        raise told(failure) from failure
    trained = result.return_value
    assert isinstance(trained, Trained)
    return trained


def _work(config: dict[str, Any]) -> Trained:
    """What each worker runs."""
    return train_phase(config["phase"], RayWorker())


class RayWorker(Distributed):
    """A worker of Ray Train, which has made the process group."""

    def __init__(self) -> None:
        super().__init__(ray.train.torch.get_device())
        # Ray compares it with that of a checkpoint, and two of s3fs are never equal
        self._filesystem = ray.train.get_context().get_storage().storage_filesystem

    def report(self, metrics: Mapping[str, float], checkpoint: str | None) -> None:
        """To Ray's controller; the checkpoint is where it should be already."""
        committed = None
        if checkpoint is not None:
            committed = ray.train.Checkpoint(checkpoint.removeprefix("s3://"), self._filesystem)
        mode = ray.train.CheckpointUploadMode.NO_UPLOAD
        ray.train.report(dict(metrics), checkpoint=committed, checkpoint_upload_mode=mode)


def _scaling(config: TrainConfig) -> ScalingConfig:
    """Raises ConfigError for more than a cluster of our own has."""
    has = ray.cluster_resources()
    if config.device == "cuda" and not has.get("GPU"):
        raise ConfigError("device cuda needs a GPU in the Ray cluster, and it has none: use --device cpu or auto")
    workers = worker_count(config.workers or "1")
    use_gpu = config.device != "cpu" and has.get("GPU", 0) > 0
    least = workers if isinstance(workers, int) else workers[0]
    ours = not (config.address or os.environ.get("RAY_ADDRESS"))  # another cluster may grow
    if ours and (least * config.cpus_per_worker > has.get("CPU", 0) or (use_gpu and least > has.get("GPU", 0))):
        raise ConfigError(
            f"{least} workers of {config.cpus_per_worker:g} CPUs{' and a GPU' if use_gpu else ''} each need more than "
            f"this machine has ({has.get('CPU', 0):.0f} CPUs, {has.get('GPU', 0):.0f} GPUs): use fewer, or --address"
        )
    return ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker=_resources(config, use_gpu))


def _resources(config: TrainConfig, use_gpu: bool) -> dict[str, float]:
    return {"CPU": config.cpus_per_worker, **({"GPU": 1} if use_gpu else {})}


class StopAtFaults(UserCallback):
    """Ends a training at what a repetition would only repeat: faults of the data, of the numbers, of the code."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises the first such fault: Ray repeats what workers raise, and not what its callbacks do."""
        for error in map(unwrapped, worker_exceptions.values()):
            if not isinstance(error, PASSING):
                raise error


def told(failure: ray.train.TrainingFailedError) -> BaseException:
    """What stopped a training, for its user."""
    errors = failure.worker_failures.values() if isinstance(failure, ray.train.WorkerGroupError) else [failure]
    causes = [unwrapped(error) for error in errors]
    for cause in causes:
        if not isinstance(cause, LOST):
            return cause
    return TrainingError(
        f"the workers of a training must stay; they died more often than --max-failures allows: {failure}. The last "
        "checkpoint is whole: the same command goes on from there"
    )


def unwrapped(error: BaseException) -> BaseException:
    """What a worker or a callback raised, out of Ray's wrappings."""
    for name in ("_base_exc", "controller_failure"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return unwrapped(inner)
    return error
