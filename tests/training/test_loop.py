"""The loop learns, resumes as if it had never stopped, and stops where a number is not finite."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from avs_core.errors import TrainingError
from avs_core.training.data import Batch
from avs_core.training.loop import BAD_BATCH, STATE, LoopConfig, Trainer

Terms = Callable[[Batch], Mapping[str, Tensor]]


def batch(number: int) -> Batch:
    """One clip of one second: the mask is where red exceeds blue."""
    frames = torch.randint(0, 256, (1, 1, 8, 8, 3), generator=torch.Generator().manual_seed(number)).byte()
    return Batch(
        frames=frames,
        log_mel=torch.zeros(1, 1, 1, 96, 64),
        masks=frames[..., 0] > frames[..., 2],
        labelled=torch.ones(1, 1, dtype=torch.bool),
    )


def batches(start: int, stop: int) -> Iterator[Batch]:
    return map(batch, range(start, stop))


def colour_model(seed: int = 0) -> nn.Module:
    """A logit a pixel from its colour, and a batch norm so that there are statistics to keep."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))


def loss_of(model: nn.Module) -> Terms:
    def loss(batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.frames[:, 0].permute(0, 3, 1, 2).float() / 255)[:, 0]
        return {"bce": F.binary_cross_entropy_with_logits(logits, batch.masks[:, 0].float())}

    return loss


def ignore(step: int, terms: Mapping[str, float]) -> None:
    """No log."""


def test_a_small_problem_is_learned() -> None:
    model, seen = colour_model(), []
    trainer = Trainer(model, LoopConfig(steps=300, lr=0.05, warm_up=5))
    trainer.fit(batches(0, 300), loss_of(model), None, lambda step, terms: seen.append(terms["bce"]))
    assert seen[0] > 0.5 > 0.15 > sum(seen[-20:]) / 20
    assert trainer.step == len(seen) == 300


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path: Path) -> None:
    config = LoopConfig(steps=20, lr=0.05, warm_up=4, checkpoint_every=5)
    whole = Trainer(colour_model(), config)
    whole.fit(batches(0, 20), loss_of(whole.model), None, ignore)

    stopped = Trainer(colour_model(), config)
    with pytest.raises(TrainingError, match="ended after 13"):
        stopped.fit(batches(0, 13), loss_of(stopped.model), tmp_path, ignore)
    resumed = Trainer(colour_model(seed=9), config)
    assert resumed.resume(tmp_path)
    assert resumed.step == 10
    resumed.fit(batches(10, 20), loss_of(resumed.model), tmp_path, ignore)

    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
        assert torch.equal(whole.average[name], resumed.average[name]), name


def test_nothing_is_resumed_from_an_empty_or_torn_checkpoint(tmp_path: Path) -> None:
    config = LoopConfig(steps=1)
    trainer = Trainer(colour_model(), config)
    assert not trainer.resume(tmp_path)
    trainer.save(tmp_path)
    (tmp_path / STATE).unlink()
    assert not trainer.resume(tmp_path)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_the_run_and_saves_its_batch(tmp_path: Path, where: str) -> None:
    model = colour_model()
    before = {name: value.clone() for name, value in model[1].state_dict().items()}
    good = loss_of(model)

    def bad(batch: Batch) -> dict[str, Tensor]:
        value = good(batch)["bce"]
        # sqrt has an infinite slope at 0, where it is finite itself
        return {"bce": value * math.nan if where == "loss" else (value - value).sqrt()}

    with pytest.raises(TrainingError, match=r"step 0.*saved as"):
        Trainer(model, LoopConfig(steps=3)).fit(batches(0, 3), bad, tmp_path, ignore)
    saved = torch.load(tmp_path / BAD_BATCH.format(rank=0), weights_only=True)
    assert torch.equal(saved["frames"], batch(0).frames)
    assert all(torch.equal(value, before[name]) for name, value in model[1].state_dict().items())


def test_a_bad_batch_without_a_folder_still_stops() -> None:
    with pytest.raises(TrainingError, match="no folder"):
        Trainer(colour_model(), LoopConfig(steps=1)).fit(
            batches(0, 1), lambda _: {"x": torch.tensor(math.inf, requires_grad=True) * 1}, None, ignore
        )


def test_frozen_parameters_stay_and_gradients_are_clipped() -> None:
    model = colour_model()
    model[0].requires_grad_(False)
    trainer = Trainer(model, LoopConfig(steps=3, lr=0.1, clip_norm=1e-12, weight_decay=0.0))
    terms = loss_of(model)
    trainer.fit(batches(0, 3), lambda batch: {"big": 1e6 * terms(batch)["bce"]}, None, ignore)
    assert torch.equal(model[0].weight, torch.ones(3))
    norm = torch.cat([p.grad.flatten() for p in model[1].parameters() if p.grad is not None]).norm()
    assert norm <= 1.0001e-12


def test_the_mean_weights_follow_the_weights() -> None:
    model = colour_model()
    trainer = Trainer(model, LoopConfig(steps=2, lr=0.1, ema=0.05))
    history = [model[1].weight.detach().clone()]
    trainer.fit(batches(0, 2), loss_of(model), None, lambda *_: history.append(model[1].weight.detach().clone()))
    wanted = history[0]
    for weight in history[1:]:
        wanted = 0.05 * wanted + 0.95 * weight
    torch.testing.assert_close(trainer.average["1.weight"], wanted)


def test_the_schedule_warms_up_and_falls_as_a_cosine() -> None:
    config = LoopConfig(steps=110, warm_up=10)
    assert [config.scale(step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert config.scale(60) == pytest.approx(0.5)
    assert config.scale(35) == pytest.approx(0.5 + math.sqrt(0.125))
    assert config.scale(110) == pytest.approx(0.0)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"lr": 0.0}, {"ema": 1.0}, {"clip_norm": 0.0}, {"momentum": 0.9}])
def test_a_wrong_setting_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LoopConfig.model_validate({"steps": 1} | wrong)
