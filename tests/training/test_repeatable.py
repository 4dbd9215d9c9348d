"""`--deterministic` on a GPU: what a recipe's step may not call there, looked for without one."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from avs_core.datasets.sources import Sources
from avs_core.training.data import Batch, CompositeBatches, StreamConfig
from avs_core.training.instances import CorrelationObjective, SightObjective, Stage
from avs_core.training.network import Trainee
from avs_core.training.objectives import (
    Agreement,
    AVSSObjective,
    LightObjective,
    MS3Objective,
    Objective,
    S4Objective,
    viewing_loss,
)
from tests.training.test_instances import tiny as tiny_instances
from tests.training.test_objectives import ALL, FIRST, K, answer, batch
from tests.training.test_two_stage import tiny as tiny_two_stage

REFUSED = {
    "_adaptive_avg_pool2d_backward",
    "_ctc_loss_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "cumsum",
    "fractional_max_pool2d_backward",
    "grid_sampler_2d_backward",
    "histc",
    "max_pool3d_with_indices_backward",
    "max_unpool2d",
    "nll_loss2d_backward",
    "nll_loss2d_forward",
    "put",
    "reflection_pad2d_backward",
}
"""What raises on a GPU says torch.use_deterministic_algorithms. F.interpolate is on its list and takes another way."""


class Watched(TorchDispatchMode):
    """Notes what is refused, in the forward and the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").split(".")[0]
        self.refused |= {name} & REFUSED
        return func(*args, **(kwargs or {}))


def refused(terms: Callable[[], Mapping[str, Tensor]]) -> set[str]:
    """What a step of this loss may not call."""
    with Watched() as watched:
        torch.stack(list(terms().values())).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    return watched.refused


def test_what_is_refused_is_seen() -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    assert refused(lambda: {"pool": F.adaptive_avg_pool2d(x, (2, 2)).sum()}) == {"_adaptive_avg_pool2d_backward"}
    assert refused(lambda: {"ce": F.cross_entropy(x, labels)}) == {"nll_loss2d_forward", "nll_loss2d_backward"}


@pytest.mark.parametrize(
    "objective",
    [
        S4Objective(),
        MS3Objective(),
        MS3Objective(Agreement("vv")),
        AVSSObjective(),
        LightObjective(agreement=Agreement()),
    ],
    ids=lambda one: type(one).__name__,
)
def test_no_loss_of_paper_1_calls_what_is_refused(objective: Objective) -> None:
    semantic = isinstance(objective, AVSSObjective)
    said = answer(K if semantic else 1)
    for value in (said.masks.logits, *said.masks.visual, *said.masks.audio):
        value.requires_grad_()
    assert refused(lambda: objective(said, batch(FIRST if semantic else ALL))) == set()


def test_the_cross_entropy_of_what_is_seen_calls_nothing_that_is_refused() -> None:
    shown, things = torch.randn(2, 3, K, 4, 4, requires_grad=True), torch.randint(0, K, (2, 3, 8, 8))
    assert refused(lambda: {"viewing": viewing_loss(shown, things)}) == set()


@pytest.fixture(scope="module")
def clips(tiny_sources: Sources) -> Batch:
    return CompositeBatches(tiny_sources, "train", StreamConfig(size=64, clips=3, frames=1, apart=False), 10)[0]


def step(trainee: Trainee, objective: Objective, clips: Batch) -> set[str]:
    """What a whole step may not call, the net included."""
    trainee.train()
    return refused(lambda: objective(trainee(clips.frames, clips.sound), clips))


@pytest.mark.parametrize(
    ("stage", "objective"),
    [
        ("sight", SightObjective("all", "plain")),
        ("sight", SightObjective("sounding", "soft")),
        ("correlation", CorrelationObjective()),
        ("correlation", CorrelationObjective(crossed=True, naming=0.5)),
    ],
)
def test_no_step_of_paper_2_calls_what_is_refused(
    stage: Stage, objective: Objective, tiny_sources: Sources, clips: Batch
) -> None:
    assert step(tiny_instances(len(tiny_sources.categories), stage), objective, clips) == set()


def test_no_step_of_ours_on_composites_calls_what_is_refused(
    trainee: Trainee, tiny_sources: Sources, clips: Batch
) -> None:
    objective = LightObjective(agreement=Agreement())
    assert step(trainee, objective, clips) == set()
    fusion = tiny_two_stage(len(tiny_sources.categories), "fusion")
    assert step(fusion, replace(objective, agreement=None), clips) == set()
