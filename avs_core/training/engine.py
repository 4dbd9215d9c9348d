"""Where a training runs: alone, or as one of several processes. The loop asks an engine and knows no framework.

`Alone` and `Torchrun` are here; Ray's engine is in `avs_core.pipelines.train`, the only layer that knows Ray.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from avs_core.errors import ConfigError

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the first one validates while the others wait."""


@runtime_checkable
class Engine(Protocol):
    """One process of a training. Every process makes the same calls in the same order."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0; the first one validates, tracks and writes."""

    @property
    def world(self) -> int:
        """How many processes there are."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """A model whose backward pass means the gradients over the processes; shares its weights with `model`."""

    def total(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Sums over the processes."""

    def from_first(self, number: int) -> int:
        """What the first process says, for all."""

    def report(self, metrics: Mapping[str, float], checkpoint: str | None) -> None:
        """Tell the framework, and wait for all; `checkpoint` is the URI of one that the first process committed."""


class Alone:
    """The only process."""

    rank, world = 0, 1

    def __init__(self, device: str = "auto") -> None:
        self.device = pick_device(device)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model itself."""
        return model

    def total(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The values."""
        return values

    def from_first(self, number: int) -> int:
        """The number."""
        return number

    def report(self, metrics: Mapping[str, float], checkpoint: str | None) -> None:
        """Nobody to tell."""


class Distributed:
    """A process of torch.distributed's default group, which somebody else has made."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.world, self.device = dist.get_rank(), dist.get_world_size(), device

    def wrap(self, model: nn.Module) -> nn.Module:
        """DDP. A loss may leave out parts of the model, such as the net while the audio encoder is trained alone."""
        if self.world == 1:
            return model
        devices = [self.device.index or 0] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=True)

    def total(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """All-reduce."""
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    def from_first(self, number: int) -> int:
        """Broadcast."""
        told = torch.tensor([number], device=self.device)
        dist.broadcast(told, 0)
        return int(told)

    def report(self, metrics: Mapping[str, float], checkpoint: str | None) -> None:
        """Wait for all."""
        dist.barrier()


@contextmanager
def torchrun(device: str = "auto") -> Iterator[Distributed]:
    """The engine of a process that torchrun started: its place is in the environment. NCCL on GPUs, else gloo."""
    if not started_by_torchrun():
        raise ConfigError(
            "the engine torchrun needs RANK and WORLD_SIZE in the environment: start it as "
            "torchrun --nproc-per-node N -m jobs.train RECIPE …"
        )
    chosen = pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Distributed(chosen)
    finally:
        dist.destroy_process_group()


def started_by_torchrun() -> bool:
    """Whether the environment says which of how many processes this is."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def pick_device(wanted: str, local_rank: int = 0) -> torch.device:
    """The device called auto, cpu or cuda; auto takes the GPU that is this process's own. Raises ConfigError."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"a device must be auto, cpu or cuda; got {wanted}")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device cuda needs a GPU, and this machine shows none: use --device cpu or auto")
    return torch.device("cuda", local_rank % torch.cuda.device_count())
