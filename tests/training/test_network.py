"""What is trained learns, what is frozen stays, and the losses are their formulas."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avs_core.datasets.sources import Sources
from avs_core.training.data import Batch, CompositeBatches, StreamConfig
from avs_core.training.loop import LoopConfig, Trainer
from avs_core.training.network import Normalisation, Objective, Trainee, naming_loss, soft_dice


@pytest.fixture
def batch(tiny_sources: Sources) -> Batch:
    return CompositeBatches(tiny_sources, "train", StreamConfig(size=64, clips=2, hushed=0.0, foreign=0.0), 9)[0]


def forever(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


def test_normalisation_is_the_formula() -> None:
    normalise = Normalisation((0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    out = normalise(torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 1, 1, 1, 3))
    torch.testing.assert_close(out.flatten(), torch.tensor([-1.0, (0.2 - 0.25) / 0.25, 1.0]))


def test_everything_but_the_backbone_learns(trainee: Trainee, batch: Batch) -> None:
    before = {name: value.clone() for name, value in trainee.state_dict().items()}
    trainer = Trainer(trainee, LoopConfig(steps=3, lr=1e-3, warm_up=0))
    trainer.fit(forever(batch), lambda b: Objective().masks(trainee, b), None, lambda *_: None)
    for name, value in trainee.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, before[name]) == name.startswith("net.backbone."), name


def test_one_batch_can_be_learned_by_heart(trainee: Trainee, batch: Batch) -> None:
    seen: list[float] = []
    trainer = Trainer(trainee, LoopConfig(steps=20, lr=5e-3, warm_up=3))
    objective = Objective(bf16=False)
    trainer.fit(
        forever(batch), lambda b: objective.masks(trainee, b), None, lambda _, terms: seen.append(terms["dice"])
    )
    assert seen[-1] < 0.8 * seen[0]


def test_the_gradient_in_bfloat16_is_finite_and_near_that_in_float32(trainee: Trainee, batch: Batch) -> None:
    trainee.train()
    gradients = []
    for bf16 in (False, True):
        trainee.zero_grad()
        torch.stack(list(Objective(bf16=bf16).masks(trainee, batch).values())).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trainee.parameters() if p.grad is not None]))
    assert bool(torch.isfinite(gradients[1]).all())
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.95


def test_sounds_train_the_audio_encoder_only(trainee: Trainee, batch: Batch) -> None:
    Objective().sounds(trainee.train(), batch)["naming"].backward()
    touched = {name.split(".")[0] for name, p in trainee.named_parameters() if p.grad is not None}
    assert touched == {"audio_encoder", "namer"}


def test_the_backbone_never_updates_its_statistics(trainee: Trainee) -> None:
    norms = [m for m in trainee.train().net.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    assert trainee.net.tpavi["0"].bn.training


def test_soft_dice_against_a_loop(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.standard_normal((2, 2, 5, 5)))
    target = torch.from_numpy((rng.random((2, 2, 5, 5)) > 0.6).astype(float))
    target[1, 1] = 0
    terms = []
    for b, t in ((0, 0), (0, 1), (1, 0)):
        p, y = 1 / (1 + np.exp(-logits[b, t].numpy())), target[b, t].numpy()
        terms.append(1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
    assert float(soft_dice(logits, target)) == pytest.approx(np.mean(terms))


def test_soft_dice_of_silence_is_zero() -> None:
    assert float(soft_dice(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))) == 0.0


def test_naming_loss_against_a_loop(rng: np.random.Generator, batch: Batch) -> None:
    named = torch.from_numpy(rng.standard_normal(batch.heard.shape).astype(np.float32))
    heard = batch.heard.numpy()
    p = 1 / (1 + np.exp(-named.numpy()))
    wanted = np.where(heard, -np.log(p), -np.log(1 - p)).sum(-1).mean()
    assert float(naming_loss(named, batch)) == pytest.approx(float(wanted), rel=1e-5)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_answer_has_the_shapes_of_its_clips(trainee: Trainee, batch: Batch) -> None:
    answer = trainee.eval()(batch.frames, batch.log_mel)
    assert answer.masks.logits.shape == batch.masks.shape
    assert answer.named.shape == batch.heard.shape
    assert answer.shown.argmax(2).shape == batch.things.shape
    assert isinstance(answer.masks.logits, Tensor)
