"""A training job from its first batch, or its last checkpoint, to what it leaves: the same alone and in each worker.

<out>/<job>/checkpoint_…/        see `checkpoints`
<out>/<job>/chosen.safetensors   the weights that are evaluated, shipped, and the next phase's start
<out>/<job>/bad_batch_<rank>.pt  what gave a loss that is not finite
<out>/<name>/…                   what the job's `finish` wrote, such as bundle/
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch

from avs_core import storage
from avs_core.errors import TrainingError
from avs_core.tracking import Tracker
from avs_core.training.checkpoints import Checkpoints
from avs_core.training.engine import Engine
from avs_core.training.job import TrainingJob, require_whole
from avs_core.training.loop import LoopConfig, Trainer, load_weights, repeatable

LOG = logging.getLogger(__name__)

CHOSEN = "chosen.safetensors"
SAY_EVERY_S = 15


@dataclass(frozen=True)
class Trained:
    """What a job came to.

    step    of the chosen weights; metrics  what they scored on the validation split
    weights their URI; left_uri  that of what `finish` wrote; left  the same in the first process's scratch folder
    """

    name: str
    step: int
    metrics: Mapping[str, float]
    weights: str
    left: Path | None = None
    left_uri: str | None = None


def train(
    job: TrainingJob,
    engine: Engine,
    out: str,
    tracker: Tracker,
    scratch: Path,
    weights: str | None = None,
    loop: LoopConfig | None = None,
) -> Trained:
    """Train to the end, from the last checkpoint below `out` if there is one.

    out      disk or S3, the same for all processes
    tracker  of the first process; a NullRun in the others
    scratch  a local folder that stays until the tracker has finished
    weights  URI of the weights to start from instead of the job's own: those of the phase before
    loop     instead of the job's own; with as many steps

    Raises ConfigError for a loop that the job can't have, TrainingError for numbers that are not finite and batches
    that end early, StorageError when a checkpoint can't be written (those before it are whole), CheckpointMismatch for
    the checkpoint of another model.
    """
    loop = loop or job.loop
    require_whole(job, loop)
    with repeatable(loop.deterministic):
        run = _Run(job, loop, engine, storage.normalise(out), tracker, scratch)
        run.start(weights)
        run.go()
        return run.finish()


@dataclass
class _Run:
    """A job in one process: its trainer, and whom to tell."""

    job: TrainingJob
    loop: LoopConfig
    engine: Engine
    out: str
    tracker: Tracker
    scratch: Path
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = storage.join(self.out, self.job.name)
        self.first = self.engine.rank == 0
        self.checkpoints = Checkpoints(self.folder, self.loop.keep)
        self.trainer = Trainer(self.job.model(), self.loop, self.engine)
        self._means = _Means()
        self._said = time.monotonic()

    def start(self, weights: str | None) -> None:
        """The last checkpoint that the first process finds, else the given weights, else the job's own."""
        found = self.checkpoints.newest() if self.first else None
        step = self.engine.from_first(found[0] if found else -1)
        if step < 0:
            if weights is not None:
                load_weights(self.trainer.model, storage.read_bytes(weights))
                self.trainer.restart_average()
            return
        files = found[1] if found else self.checkpoints.load(step)
        assert files is not None, "the first process has just read it"
        self.trainer.restore(files)
        if self.first:
            LOG.info("%s: resumed at step %d of %d", self.job.name, step, self.loop.steps)
            self.tracker.set_tags({"resumed_at_step": str(step)})

    def go(self) -> None:
        """The steps that are left."""
        config, trainer = self.loop, self.trainer
        if trainer.step >= config.steps:
            return
        for batch in self.job.batches(trainer.step, self.engine.rank, self.engine.world):
            number, started = trainer.step, time.monotonic()
            terms = trainer.advance(batch, lambda part: self.job.loss(trainer.model, part), self.folder)
            self._log_step(number, terms, time.monotonic() - started)
            last = trainer.step >= config.steps
            if last or (config.validate_every and trainer.step % config.validate_every == 0):
                self._validate()
            if last or trainer.step % config.checkpoint_every == 0:
                self._checkpoint()
            if last:
                return
        raise TrainingError(f"training needs {config.steps} batches, the data ended after {trainer.step}")

    def finish(self) -> Trained:
        """Write the chosen weights and what the job leaves; the first process alone."""
        trainer, best, weights = self.trainer, self.trainer.best, storage.join(self.folder, CHOSEN)
        step = best.step if best else trainer.step
        metrics = {"miou": best.miou} if best else {}
        left = None
        if self.first:
            storage.write_bytes(weights, safetensors.torch.save(trainer.chosen()))
            trainer.model.load_state_dict(trainer.chosen())
            trainer.model.eval()
            left = self.job.finish(trainer.model, self.scratch)
        self.engine.report(metrics, None)
        uri = None if left is None else self._upload(left)
        return Trained(self.job.name, step, metrics, weights, left, uri)

    def _log_step(self, number: int, terms: Mapping[str, float], seconds: float) -> None:
        if not self.first:
            return
        loss = sum(value for name, value in terms.items() if name != "grad_norm")
        terms = {"loss": loss, **terms}
        self._means.add(terms)
        rate = self.loop.lr * self.loop.scale(number)
        told = {f"train/{name}": value for name, value in terms.items()}
        self.tracker.log_metrics({**told, "train/lr": rate, "train/step_seconds": seconds}, number)
        if time.monotonic() - self._said > SAY_EVERY_S:
            self._said = time.monotonic()
            LOG.info("%s %d/%d: loss %.4f, %.2f s a step", self.job.name, number + 1, self.loop.steps, loss, seconds)

    def _validate(self) -> None:
        """By the first process, while the others wait for the next step."""
        if not self.first:
            return
        step = self.trainer.step
        self.tracker.log_metrics({f"epoch/{name}": value for name, value in self._means.take().items()}, step)
        with self.trainer.averaged() as model:
            metrics = dict(self.job.validate(model))
            pictures = self.job.samples(model)
        self.tracker.log_metrics({f"val/{name}": value for name, value in metrics.items()}, step)
        for name, data in pictures.items():
            path = self.scratch / "samples" / f"step_{step:08d}" / name
            storage.write_bytes(str(path), data)
            self.tracker.log_file(path, f"samples/step_{step:08d}/{name}")
        if "miou" in metrics:
            self.trainer.consider(metrics["miou"])
            LOG.info("%s %d/%d: mIoU %.4f", self.job.name, step, self.loop.steps, metrics["miou"])
        self.metrics = metrics

    def _checkpoint(self) -> None:
        uri = self.checkpoints.save(self.trainer.step, self.trainer.snapshot()) if self.first else None
        self.engine.report({"step": float(self.trainer.step), **self.metrics}, uri)

    def _upload(self, left: Path) -> str:
        target = storage.join(self.out, left.name)
        for path in sorted(left.rglob("*")):
            if path.is_file():
                storage.write_bytes(storage.join(target, path.relative_to(left).as_posix()), path.read_bytes())
        return target


class _Means:
    """Means over the steps since they were last taken."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._steps = 0

    def add(self, terms: Mapping[str, float]) -> None:
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1

    def take(self) -> dict[str, float]:
        means = {name: value / self._steps for name, value in self._sums.items()}
        self._sums, self._steps = {}, 0
        return means
