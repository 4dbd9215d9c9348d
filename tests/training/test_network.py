"""What is trained learns, what is frozen stays, and the losses are their formulas."""

import pytest
import torch
from torch import Tensor, nn

from avs_core.datasets.sources import Sources
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.tpavi import TPAVINet
from avs_core.training.data import Batch, CompositeBatches, StreamConfig
from avs_core.training.initialise import LITE0_INPUT
from avs_core.training.loop import LoopConfig, Trainer
from avs_core.training.network import Normalisation, TPAVITrainee, Trainee
from avs_core.training.objectives import LightObjective, SoundObjective
from tests.training.conftest import TINY_NET


@pytest.fixture
def batch(tiny_sources: Sources) -> Batch:
    return CompositeBatches(tiny_sources, "train", StreamConfig(size=64, clips=2, hushed=0.0, foreign=0.0), 9)[0]


def test_normalisation_is_the_formula() -> None:
    normalise = Normalisation((0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    out = normalise(torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 1, 1, 1, 3))
    torch.testing.assert_close(out.flatten(), torch.tensor([-1.0, (0.2 - 0.25) / 0.25, 1.0]))


def test_everything_but_the_backbone_learns(trainee: Trainee, batch: Batch) -> None:
    before = {name: value.clone() for name, value in trainee.state_dict().items()}
    trainer = Trainer(trainee, LoopConfig(steps=3, lr=1e-3, warm_up=0))
    for _ in range(3):
        trainer.advance(batch, lambda b: LightObjective()(trainee(b.frames, b.sound), b), None)
    for name, value in trainee.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, before[name]) == name.startswith("net.backbone."), name


def test_one_batch_can_be_learned_by_heart(trainee: Trainee, batch: Batch) -> None:
    seen: list[float] = []
    trainer = Trainer(trainee, LoopConfig(steps=20, lr=5e-3, warm_up=3))
    objective = LightObjective()
    for _ in range(trainer.config.steps):
        terms = trainer.advance(batch, lambda b: objective(trainee(b.frames, b.sound), b), None)
        seen.append(terms["dice"])
    assert seen[-1] < 0.8 * seen[0]


def test_the_gradient_in_bfloat16_is_finite_and_near_that_in_float32(trainee: Trainee, batch: Batch) -> None:
    trainee.train()
    gradients = []
    for bf16 in (False, True):
        trainee.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            terms = LightObjective()(trainee(batch.frames, batch.sound), batch)
        torch.stack(list(terms.values())).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trainee.parameters() if p.grad is not None]))
    assert bool(torch.isfinite(gradients[1]).all())
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.95


def test_sounds_train_the_audio_encoder_only(trainee: Trainee, batch: Batch) -> None:
    SoundObjective()(trainee.train()(None, batch.sound), batch)["naming"].backward()
    touched = {name.split(".")[0] for name, p in trainee.named_parameters() if p.grad is not None}
    assert touched == {"audio_encoder", "namer"}


def test_the_backbone_never_updates_its_statistics(trainee: Trainee) -> None:
    norms = [m for m in trainee.train().net.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    assert trainee.net.tpavi["0"].bn.training


def test_the_answer_has_the_shapes_of_its_clips(trainee: Trainee, batch: Batch) -> None:
    answer = trainee.eval()(batch.frames, batch.sound)
    assert answer.masks.logits.shape == batch.masks.shape
    assert answer.named.shape == batch.heard.shape
    assert answer.shown.argmax(2).shape == batch.things.shape
    assert isinstance(answer.masks.logits, Tensor)


def test_without_categories_there_are_no_heads() -> None:
    bare = TPAVITrainee(TPAVINet(TINY_NET), AudioCNN(), LITE0_INPUT, None, frozen="audio_encoder").train()
    answer = bare(torch.zeros(1, 2, 32, 32, 3, dtype=torch.uint8), torch.zeros(1, 2, 1, 96, 64))
    assert answer.named is answer.shown is None
    assert {name.split(".")[0] for name, _ in bare.named_parameters()} == {"net", "audio_encoder"}
    learned = {name.split(".")[0] for name, p in bare.named_parameters() if p.requires_grad}
    assert learned == {"net"}
    assert all(p.requires_grad for p in bare.net.backbone.parameters())
    assert bare.net.backbone.training
    assert not bare.audio_encoder.training
