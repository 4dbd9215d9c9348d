"""One phase of a recipe as a value: what the loop is given, and what it leaves."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.utils.data import Dataset

from avs_core.errors import ConfigError
from avs_core.training.data import Batch, stream
from avs_core.training.held_out import HeldOut
from avs_core.training.loop import LoopConfig
from avs_core.training.network import Trainee
from avs_core.training.objectives import Objective

Share = Callable[[int, int], Dataset[Batch]]
"""(rank, world) → number of a global batch → this process's share of it."""

Leave = Callable[[Trainee, HeldOut, Path], Path]
"""Writes what a trained trainee leaves, such as a bundle, into a folder of its own below the given one."""


@dataclass(frozen=True)
class RecipeJob:
    """A TrainingJob. Everything in it is picklable, and light until a method is called.

    build      the trainee before the first step
    share      the training batches
    sees       whether the trainee is shown the pictures, or hears the sound alone
    held_out   what chooses the best weights; None = the last ones are taken
    leave      what is written in the end; None = nothing
    workers    processes that prepare batches
    """

    name: str
    loop: LoopConfig
    build: Callable[[], Trainee]
    share: Share
    objective: Objective
    sees: bool = True
    held_out: HeldOut | None = None
    leave: Leave | None = None
    workers: int = 1

    @property
    def crosses(self) -> bool:
        """See TrainingJob."""
        return self.objective.crosses

    def model(self) -> Trainee:
        """See TrainingJob."""
        return self.build()

    def batches(self, start: int, rank: int, world: int) -> Iterator[Batch]:
        """See TrainingJob."""
        return stream(self.share(rank, world), start, self.loop.steps, self.workers)

    def loss(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """See TrainingJob."""
        return self.objective(model(batch.frames if self.sees else None, batch.sound), batch)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """See TrainingJob."""
        return {} if self.held_out is None else self.held_out.validate(_trainee(model))

    def samples(self, model: nn.Module) -> Mapping[str, bytes]:
        """See TrainingJob."""
        return {} if self.held_out is None else self.held_out.samples(_trainee(model))

    def finish(self, model: nn.Module, out: Path) -> Path | None:
        """See TrainingJob."""
        if self.leave is None or self.held_out is None:
            return None
        return self.leave(_trainee(model).eval(), self.held_out, out)


def _trainee(model: nn.Module) -> Trainee:
    if not isinstance(model, Trainee):
        raise ConfigError(f"this phase trains a Trainee, and was handed a {type(model).__name__}: unwrap it first")
    return model
