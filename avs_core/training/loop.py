"""How weights move: one step after the other, with exact resume. Which process this is, an engine knows.

What a step draws at random (dropout, stochastic depth) depends on the seed, the step and the process alone, so that a
resumed run repeats an undisturbed one.
"""

import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from avs_core import storage
from avs_core.errors import CheckpointMismatch, ConfigError, TrainingError
from avs_core.training.data import Batch
from avs_core.training.engine import Alone, Engine

Loss = Callable[[Batch], Mapping[str, Tensor]]

STATE, WEIGHTS, AVERAGE, BEST = "state.pt", "weights.safetensors", "average.safetensors", "best.safetensors"
BAD_BATCH = "bad_batch_{rank}.pt"


class LoopConfig(BaseModel):
    """How the weights move.

    lr                peak learning rate
    schedule          after the warm-up: a cosine to zero at `steps`, or constant
    warm_up           steps of linear rise
    clip_norm         gradients are scaled down to this norm; None = never
    ema               decay of the running mean of the weights, which is then what is evaluated and shipped; 0 = none
    accumulate        a process works on its share of a batch in that many parts, to save memory; refused for losses
                      that pair the clips of a batch
    precision         bf16: autocast computes in bfloat16 where that is safe; the weights stay float32
    batch_norm        free: statistics of each process's own share; sync: of the whole batch (GPUs only);
                      frozen: those the model came with. Scale and shift are learned in each case
    checkpoint_every  steps; `keep` checkpoints stay
    validate_every    steps, such as those of an epoch; None = after the last one alone
    deterministic     only algorithms that repeat bit for bit on a GPU too; some are slower, and the first stage of the
                      two-stage baseline needs Triton for it
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    optimiser: Literal["adamw", "adam"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"
    warm_up: int = Field(100, ge=0)
    clip_norm: float | None = Field(1.0, gt=0)
    ema: float = Field(0.995, ge=0, lt=1)
    accumulate: int = Field(1, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_norm: Literal["free", "sync", "frozen"] = "free"
    checkpoint_every: int = Field(100, ge=1)
    keep: int = Field(2, ge=1)
    validate_every: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    deterministic: bool = False

    def scale(self, step: int) -> float:
        """Share of the peak learning rate at a step, counted from 0."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        if self.schedule == "constant":
            return 1.0
        progress = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Best:
    """The weights that did best on the validation split, and when."""

    step: int
    miou: float
    weights: dict[str, Tensor]


class Trainer:
    """A model with its optimiser, its running mean, its best weights and its step: what a checkpoint holds."""

    def __init__(self, model: nn.Module, config: LoopConfig, engine: Engine | None = None) -> None:
        """Parameters that need no gradient stay as they are. Raises ConfigError."""
        self.engine: Engine = engine or Alone("cpu")
        self.config, self.step = config, 0
        self.model = _synced(model, config, self.engine).to(self.engine.device)
        self._terms = self.engine.wrap(_Terms(self.model))
        self.best: Best | None = None
        self._learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
        self.optimiser: torch.optim.Optimizer = kind(self._learned, lr=config.lr, weight_decay=config.weight_decay)
        self.average: dict[str, Tensor] = {}
        self.restart_average()

    def advance(self, batch: Batch, loss: Loss, bad: str | None) -> dict[str, float]:
        """One step on this process's share of a batch; the terms and the gradient's norm, meaned over the batch.

        Each part of each process counts by its clips, so a loss that is a plain mean over clips is the same whatever
        the number of processes and parts. What it divides by instead, and pairs of clips, are those of a part alone.
        Raises TrainingError in every process when a number is not finite in any, with the batch saved below the URI
        `bad`; the weights are then as before. Raises ConfigError for parts that `batch_norm` sync can't wait for.
        """
        self._prepare()
        batch = _mapped(batch, lambda value: value.to(self.engine.device))
        means = self._backward(batch, loss)
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = nn.utils.clip_grad_norm_(self._learned, limit)
        numbers = {name: float(value) for name, value in means.items()} | {"grad_norm": float(norm)}
        if not all(map(math.isfinite, numbers.values())):
            raise TrainingError(self._bad(batch, numbers, bad))
        self.optimiser.step()
        self._follow()
        self.step += 1
        return numbers

    def _prepare(self) -> None:
        config = self.config
        self.model.train()
        if config.batch_norm == "frozen":
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        for group in self.optimiser.param_groups:
            group["lr"] = config.lr * config.scale(self.step)
        self.optimiser.zero_grad()
        draw = np.random.SeedSequence([config.seed, self.step, self.engine.rank])
        torch.manual_seed(int(draw.generate_state(1, np.uint64)[0]))

    def _backward(self, batch: Batch, loss: Loss) -> dict[str, Tensor]:
        """Gradients of the mean over the whole batch; the terms of it."""
        engine, clips = self.engine, len(batch.frames)
        count = min(self.config.accumulate, clips)
        total = self._clips(clips, count)
        sums: dict[str, Tensor] = {}
        parts = _parts(batch, count)
        for i, part in enumerate(parts):
            # DDP means over the processes: a part counts by its clips
            weight = len(part.frames) * engine.world / total
            with self._alone(i < len(parts) - 1):
                with self._numbers():
                    terms = self._terms(loss, part)
                (weight * torch.stack(list(terms.values())).sum()).backward()
            for name, term in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=engine.device)) + weight * term.detach()
        return dict(zip(sums, engine.total(torch.stack(list(sums.values())).float()) / engine.world, strict=True))

    def _clips(self, own: int, parts: int) -> float:
        """Clips of the whole batch, of which this process works on its own ones in so many parts.

        Raises TrainingError, ConfigError: in every process or in none.
        """
        engine, config = self.engine, self.config
        told = torch.tensor([own, own == 0, parts, parts**2], device=engine.device).float()
        total, idle, passes, squares = engine.total(told).tolist()
        if idle:
            raise TrainingError(
                f"each process needs a clip of every batch; of {engine.world}, {idle:.0f} got none of {total:.0f}: "
                "train with fewer workers"
            )
        # numbers whose mean square is their squared mean are equal
        if config.batch_norm == "sync" and engine.world * squares != passes**2:
            raise ConfigError(
                "synchronised batch norms wait for as many parts in each process; "
                f"{total:.0f} clips on {engine.world} processes, --accumulate {config.accumulate}, are {passes:.0f} "
                "parts in all, here more and there fewer: leave out --accumulate, use a number of processes that "
                "divides the clips, or --batch-norm frozen"
            )
        return float(total)

    def _alone(self, alone: bool) -> AbstractContextManager[Any]:
        """Without an exchange of gradients, if so: the last part exchanges those of all."""
        return self._terms.no_sync() if alone and isinstance(self._terms, DistributedDataParallel) else nullcontext()

    def _numbers(self) -> torch.autocast:
        return torch.autocast(self.engine.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def restart_average(self) -> None:
        """Let the running mean begin at the weights as they are."""
        own = self.model.state_dict()
        # without a running mean these are the weights themselves, not copies
        self.average = {name: value.clone() for name, value in own.items()} if self.config.ema else own

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running mean; early on it forgets faster, so that it does not remember the start."""
        if not self.config.ema:
            return
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def _bad(self, batch: Batch, numbers: Mapping[str, float], folder: str | None) -> str:
        saved = "not saved, since no folder was given"
        if folder is not None:
            place = storage.join(storage.normalise(folder), BAD_BATCH.format(rank=self.engine.rank))
            tensors = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
            storage.write_bytes(place, _saved(tensors))
            saved = f"saved as {place}"
        values = ", ".join(f"{name} = {value}" for name, value in numbers.items())
        return (
            f"loss and gradient must be finite; at step {self.step}: {values}. The batch is {saved}; "
            "try a lower learning rate or computing in float32"
        )

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The model with the mean weights, in eval mode; afterwards as it was."""
        own = {name: value.clone() for name, value in self.model.state_dict().items()} if self.config.ema else None
        self.model.load_state_dict(self.average)
        self.model.eval()
        try:
            with torch.no_grad():
                yield self.model
        finally:
            if own is not None:
                self.model.load_state_dict(own)

    def consider(self, miou: float) -> None:
        """Keep the mean weights as the best ones, if they are."""
        if self.best is None or miou > self.best.miou:
            self.best = Best(self.step, miou, {name: value.cpu().clone() for name, value in self.average.items()})

    def chosen(self) -> dict[str, Tensor]:
        """What is shipped: the best weights, or the mean ones where nothing was validated."""
        return self.average if self.best is None else self.best.weights

    def snapshot(self) -> dict[str, bytes]:
        """A checkpoint: name → content; the step counter comes last."""
        files = {WEIGHTS: safetensors.torch.save(self.model.state_dict())}
        state: dict[str, Any] = {"step": self.step, "optimiser": self.optimiser.state_dict(), "best": None}
        if self.config.ema:
            files[AVERAGE] = safetensors.torch.save(self.average)
        if self.best is not None:
            files[BEST] = safetensors.torch.save(self.best.weights)
            state["best"] = {"step": self.best.step, "miou": self.best.miou}
        return files | {STATE: _saved(state)}

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Go on from a checkpoint. Raises CheckpointMismatch for that of another model or another running mean."""
        state = torch.load(io.BytesIO(files[STATE]), map_location=self.engine.device, weights_only=True)
        if self.config.ema and AVERAGE not in files:
            raise CheckpointMismatch("the checkpoint holds no running mean, but ema is on: train into another folder")
        load_weights(self.model, files[WEIGHTS])
        if self.config.ema:
            mean = safetensors.torch.load(files[AVERAGE])
            self.average = {name: value.to(self.engine.device) for name, value in mean.items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        best = state["best"]
        self.best = best and Best(best["step"], best["miou"], safetensors.torch.load(files[BEST]))


class _Terms(nn.Module):
    """A model's way to the terms of a loss: DDP then sees which parameters the loss uses, not which the model does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        """`loss` calls the model."""
        return dict(loss(batch))


def load_weights(model: nn.Module, data: bytes) -> None:
    """Fill a model from the bytes of a safetensors file. Raises CheckpointMismatch."""
    try:
        model.load_state_dict(safetensors.torch.load(data))
    except RuntimeError as error:
        raise CheckpointMismatch(
            f"a checkpoint must be of the same model; train into another folder, or remove the old one: {error}"
        ) from error


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Within the block PyTorch uses only algorithms that repeat bit for bit, if so.

    On a GPU it raises RuntimeError where it has none. tests/training/test_repeatable.py looks for such without a GPU.
    """
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark


def _synced(model: nn.Module, config: LoopConfig, engine: Engine) -> nn.Module:
    """The model with batch norms that share their statistics, if so; one process has them all anyway."""
    if config.batch_norm != "sync" or engine.world == 1:
        return model
    if engine.device.type != "cuda":
        raise ConfigError("PyTorch has synchronised batch norms on GPUs only: use batch_norm frozen, or one process")
    synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return synced


def _parts(batch: Batch, count: int) -> list[Batch]:
    """The batch in `count` parts of about the same number of clips."""
    edges = [len(batch.frames) * i // count for i in range(count + 1)]
    return [_mapped(batch, itemgetter(slice(*span))) for span in pairwise(edges)]


def _mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with another tensor for each of its tensors."""
    tensors = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)})


def _saved(value: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(value), buffer)
    return buffer.getvalue()
