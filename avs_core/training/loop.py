"""The training loop: a plain function over batches, with exact resume. Whoever calls it adds an engine."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from avs_core.errors import TrainingError
from avs_core.training.data import Batch

Loss = Callable[[Batch], Mapping[str, Tensor]]
OnStep = Callable[[int, Mapping[str, float]], None]

STATE, WEIGHTS, AVERAGE, BAD_BATCH = "state.pt", "weights.safetensors", "average.safetensors", "bad_batch.pt"


class LoopConfig(BaseModel):
    """How the weights move.

    lr                peak learning rate
    warm_up           steps of linear rise; then a cosine to zero at `steps`
    clip_norm         gradients are scaled down to this norm
    ema               decay of the running mean of the weights; the mean is what is evaluated and shipped
    checkpoint_every  steps
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warm_up: int = Field(100, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    ema: float = Field(0.995, ge=0, lt=1)
    checkpoint_every: int = Field(100, ge=1)

    def scale(self, step: int) -> float:
        """Share of the peak learning rate at a step, counted from 0."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        progress = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return 0.5 * (1 + math.cos(math.pi * progress))


class Trainer:
    """A model with its optimiser, its running mean and its step: everything a checkpoint holds."""

    def __init__(self, model: nn.Module, config: LoopConfig) -> None:
        """Parameters that need no gradient stay as they are."""
        self.model, self.config, self.step = model, config, 0
        self._learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(self._learned, lr=config.lr, weight_decay=config.weight_decay)
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def fit(self, batches: Iterable[Batch], loss: Loss, folder: Path | None, on_step: OnStep) -> None:
        """Train from the current step to `config.steps`; `batches` start at the current step.

        `on_step(step, terms)` is called after each. Raises TrainingError when a loss or the gradient is not finite,
        with the batch saved in `folder`, or when the batches end too early.
        """
        self.model.train()
        for batch in batches:
            on_step(self.step, self._step(batch, loss, folder))
            self.step += 1
            if folder is not None and (self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps):
                self.save(folder)
            if self.step == self.config.steps:
                return
        raise TrainingError(f"training needs {self.config.steps} batches, the data ended after {self.step}")

    def _step(self, batch: Batch, loss: Loss, folder: Path | None) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr * self.config.scale(self.step)
        terms = loss(batch)
        self.optimiser.zero_grad()
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        norm = nn.utils.clip_grad_norm_(self._learned, self.config.clip_norm)
        numbers = {name: float(term.detach()) for name, term in terms.items()} | {"grad_norm": float(norm)}
        if not all(map(math.isfinite, numbers.values())):
            raise TrainingError(self._bad(batch, numbers, folder))
        self.optimiser.step()
        self._follow()
        return numbers

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running mean; early on it forgets faster, so that it does not remember the start."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def _bad(self, batch: Batch, numbers: Mapping[str, float], folder: Path | None) -> str:
        saved = "not saved, since no folder was given"
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(vars(batch), folder / BAD_BATCH)
            saved = f"saved as {folder / BAD_BATCH}"
        values = ", ".join(f"{name} = {value}" for name, value in numbers.items())
        return (
            f"loss and gradient must be finite; at step {self.step}: {values}. The batch is {saved}; "
            "try a lower learning rate or computing in float32"
        )

    def save(self, folder: Path) -> None:
        """Write a checkpoint; the step counter goes last, so that a torn one is never resumed."""
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(self.model.state_dict(), folder / WEIGHTS)
        safetensors.torch.save_file(self.average, folder / AVERAGE)
        partial = folder / f"{STATE}.partial"
        torch.save({"step": self.step, "optimiser": self.optimiser.state_dict()}, partial)
        partial.rename(folder / STATE)

    def resume(self, folder: Path) -> bool:
        """Continue from a checkpoint, if there is one; whether there was."""
        if not (folder / STATE).is_file():
            return False
        state = torch.load(folder / STATE, weights_only=True)
        self.model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        self.average = safetensors.torch.load_file(folder / AVERAGE)
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        return True
