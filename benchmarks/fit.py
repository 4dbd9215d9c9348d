"""What a training step of each recipe needs: memory by its parts, arithmetic, and what processes exchange.

Counted, not estimated: one forward and backward pass of one clip on a CPU, with random weights. Weights, gradients and
Adam's moments follow from the parameters; what autograd saves is summed as it is saved, each storage once, and grows
with the clips; the arithmetic is PyTorch's own count of products and sums. A GPU needs that and its allocator's slack.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from avs_core.models.bundle import build_audio_encoder
from avs_core.models.tpavi import TPAVINet
from avs_core.models.vggish import VGGish
from avs_core.recipes import LIGHT, find_recipe
from avs_core.training.data import GRID, Batch
from avs_core.training.initialise import LITE0_INPUT
from avs_core.training.network import TPAVITrainee, Trainee
from avs_core.training.objectives import Objective
from avs_core.training.published import PUBLISHED_INPUT, PublishedRecipe
from benchmarks.measure import Row, peak_mb

PUBLISHED = ("s4-r50", "s4-pvt", "ms3-pvt", "avss-pvt")
CATEGORIES = 66
GIGA = 1e9


@dataclass(frozen=True)
class Case:
    """One recipe. clips, seconds, size: of a batch; ema: whether a running mean is kept; bf16: autocast."""

    name: str
    clips: int
    seconds: int
    size: int
    ema: bool
    bf16: bool


def cases() -> list[Case]:
    """The published recipes that differ, and ours."""
    found = []
    for name in PUBLISHED:
        recipe = find_recipe(name)
        assert isinstance(recipe, PublishedRecipe)
        seconds = 10 if recipe.setting == "avss" else 5
        found.append(Case(name, recipe.feed.clips, seconds, recipe.feed.size, False, False))
    stream = LIGHT.stream
    return [*found, Case(LIGHT.name, stream.clips, stream.frames, stream.size, True, True)]


def run() -> list[Row]:
    """Per recipe: bytes of each part for a whole batch on one GPU, its sum, FLOP a step, bytes exchanged a step."""
    rows = []
    for case in cases():
        trainee, objective = build(case.name)
        saved, flop = counted(trainee, objective, case)
        learned = size_of(p for p in trainee.parameters() if p.requires_grad)
        weights = size_of(trainee.state_dict().values())
        parts = {
            "weights": weights,
            "gradients": learned,
            "Adam's moments": 2 * learned,
            "running mean": weights if case.ema else 0,
            f"saved for backward, {case.clips} clips": saved * case.clips,
        }
        rows += [Row(f"{case.name}: {part}", size / GIGA, "GB") for part, size in parts.items() if size]
        rows.append(Row(f"{case.name}: sum", sum(parts.values()) / GIGA, "GB"))
        rows.append(Row(f"{case.name}: saved for backward, 1 clip", saved / GIGA, "GB"))
        rows.append(Row(f"{case.name}: arithmetic, {case.clips} clips", flop * case.clips / 1e12, "TFLOP"))
    light = cases()[-1]
    rows.append(Row(f"{light.name}: peak of a process that takes one step of 1 clip", peak_mb(step, light) / 1e3, "GB"))
    return rows


def build(name: str) -> tuple[Trainee, Objective]:
    """The recipe's trainee with random weights, in train mode, and its objective."""
    recipe = find_recipe(name)
    if isinstance(recipe, PublishedRecipe):
        trainee = TPAVITrainee(TPAVINet(recipe.net), VGGish(), PUBLISHED_INPUT, None, frozen="audio_encoder")
        return trainee.train(), recipe.objective
    encoder = build_audio_encoder(LIGHT.audio_encoder)
    return TPAVITrainee(TPAVINet(LIGHT.net), encoder, LITE0_INPUT, CATEGORIES).train(), LIGHT.objective


def batch(case: Case) -> Batch:
    """One clip of noise, labelled throughout."""
    T, S = case.seconds, case.size
    light = case.name == LIGHT.name
    return Batch(
        frames=torch.randint(0, 256, (1, T, S, S, 3), dtype=torch.uint8),
        sound=torch.randn(1, T, 1, 96, 64),
        masks=torch.rand(1, T, S, S) > 0.5,
        labelled=torch.ones(1, T, dtype=torch.bool),
        labels=torch.randint(0, 71, (1, T, S, S)),
        heard=torch.zeros(1, T, CATEGORIES, dtype=torch.bool) if light else None,
        things=torch.zeros(1, T, S // GRID, S // GRID, dtype=torch.int64) if light else None,
    )


def counted(trainee: nn.Module, objective: Objective, case: Case) -> tuple[int, int]:
    """Bytes that autograd saves for one clip, without the parameters, and FLOP of the forward and backward pass."""
    clip, own = batch(case), {p.untyped_storage().data_ptr() for p in trainee.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
            terms = objective(trainee(clip.frames, clip.sound), clip)
        torch.stack(list(terms.values())).sum().backward()
    return sum(kept.values()), counter.get_total_flops()


def step(case: Case) -> None:
    """One step of one clip with its optimiser, for a process of its own."""
    trainee, objective = build(case.name)
    clip = batch(case)
    optimiser = torch.optim.AdamW([p for p in trainee.parameters() if p.requires_grad])
    with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
        terms = objective(trainee(clip.frames, clip.sound), clip)
    torch.stack(list(terms.values())).sum().backward()
    optimiser.step()


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
