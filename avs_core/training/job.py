"""What is trained, apart from the engine that trains it: the contract between recipes and the loop."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from avs_core.errors import ConfigError
from avs_core.training.data import Batch
from avs_core.training.loop import LoopConfig


@runtime_checkable
class TrainingJob(Protocol):
    """One phase of a recipe on a data set. Picklable, and light until a method is called: Ray sends it to workers."""

    @property
    def name(self) -> str:
        """Of the phase: its checkpoints' folder and the prefix of its metrics."""

    @property
    def loop(self) -> LoopConfig:
        """How the weights move."""

    @property
    def crosses(self) -> bool:
        """Whether the loss pairs the clips of a batch with each other, see Objective."""

    def model(self) -> nn.Module:
        """The model before the first step; the same on every worker, for it is seeded."""

    def batches(self, start: int, rank: int, world: int) -> Iterator[Batch]:
        """This rank's share of the global batches `start`, `start` + 1, …; depends on nothing but its arguments."""

    def loss(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Named terms whose sum is minimised. Parts of the model, and of its answer, may be left out."""

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Figures of the validation split in eval mode; "miou" chooses the best checkpoint. {} = the phase has none."""

    def samples(self, model: nn.Module) -> Mapping[str, bytes]:
        """PNG pictures of predictions by file name; {} for none."""

    def finish(self, model: nn.Module, out: Path) -> Path | None:
        """Write what the phase leaves, such as a bundle; None for nothing."""


def require_whole(job: TrainingJob, loop: LoopConfig) -> None:
    """Raises ConfigError where a batch would be worked on in parts though the loss pairs its clips."""
    if job.crosses and loop.accumulate > 1:
        raise ConfigError(
            f"the loss of {job.name} pairs the clips of a batch with each other; got --accumulate {loop.accumulate}, "
            "and pairs of two parts would be missing: leave it out"
        )
