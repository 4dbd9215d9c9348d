"""The loop learns, resumes as if it had never stopped, and stops where a number is not finite."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from avs_core.errors import CheckpointMismatch, ConfigError, TrainingError
from avs_core.pipelines.train_config import TrainConfig
from avs_core.training import loop as loop_module
from avs_core.training.data import Batch
from avs_core.training.engine import Alone
from avs_core.training.loop import BAD_BATCH, LoopConfig, Trainer, repeatable
from tests.training.tiny_job import TinyJob, clips

Terms = Callable[[Batch], Mapping[str, Tensor]]


def batch(number: int) -> Batch:
    """One clip of one second: the mask is where red exceeds blue."""
    frames = torch.randint(0, 256, (1, 1, 8, 8, 3), generator=torch.Generator().manual_seed(number)).byte()
    return Batch(
        frames=frames,
        sound=torch.zeros(1, 1, 1, 96, 64),
        masks=frames[..., 0] > frames[..., 2],
        labelled=torch.ones(1, 1, dtype=torch.bool),
    )


def colour_model(seed: int = 0) -> nn.Module:
    """A logit a pixel from its colour, and a batch norm so that there are statistics to keep."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))


def loss_of(model: nn.Module) -> Terms:
    def loss(batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.frames[:, 0].permute(0, 3, 1, 2).float() / 255)[:, 0]
        return {"bce": F.binary_cross_entropy_with_logits(logits, batch.masks[:, 0].float())}

    return loss


def walk(trainer: Trainer, numbers: range, loss: Terms, bad: str | None = None) -> list[float]:
    """The sums of the terms of each step."""
    told = (trainer.advance(batch(number), loss, bad) for number in numbers)
    return [sum(value for name, value in terms.items() if name != "grad_norm") for terms in told]


def test_a_small_problem_is_learned() -> None:
    model = colour_model()
    trainer = Trainer(model, LoopConfig(steps=300, lr=0.05, warm_up=5))
    seen = walk(trainer, range(300), loss_of(model))
    assert seen[0] > 0.5 > 0.15 > sum(seen[-20:]) / 20
    assert trainer.step == len(seen) == 300


def test_a_restored_trainer_equals_one_that_went_on() -> None:
    config = LoopConfig(steps=20, lr=0.05, warm_up=4)
    whole, again = Trainer(colour_model(), config), Trainer(colour_model(seed=9), config)
    walk(whole, range(10), loss_of(whole.model))
    again.restore(whole.snapshot())
    assert again.step == 10
    for trainer in (whole, again):
        walk(trainer, range(10, 20), loss_of(trainer.model))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
        assert torch.equal(whole.average[name], again.average[name]), name


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
        walk(Trainer(model, LoopConfig(steps=3)), range(3), bad, str(tmp_path))
    saved = torch.load(tmp_path / BAD_BATCH.format(rank=0), weights_only=True)
    assert torch.equal(saved["frames"], batch(0).frames)
    assert all(torch.equal(value, before[name]) for name, value in model[1].state_dict().items())


def test_a_bad_batch_without_a_folder_still_stops() -> None:
    with pytest.raises(TrainingError, match="no folder"):
        walk(
            Trainer(colour_model(), LoopConfig(steps=1)),
            range(1),
            lambda _: {"x": torch.tensor(math.inf, requires_grad=True) * 1},
        )


def test_frozen_parameters_stay_and_gradients_are_clipped() -> None:
    model = colour_model()
    model[0].requires_grad_(False)
    trainer = Trainer(model, LoopConfig(steps=3, lr=0.1, clip_norm=1e-12, weight_decay=0.0))
    terms = loss_of(model)
    walk(trainer, range(3), lambda batch: {"big": 1e6 * terms(batch)["bce"]})
    assert torch.equal(model[0].weight, torch.ones(3))
    norm = torch.cat([p.grad.flatten() for p in model[1].parameters() if p.grad is not None]).norm()
    assert norm <= 1.0001e-12


def test_the_mean_weights_follow_the_weights() -> None:
    model = colour_model()
    trainer = Trainer(model, LoopConfig(steps=2, lr=0.1, ema=0.05))
    history = [model[1].weight.detach().clone()]
    for number in range(2):
        walk(trainer, range(number, number + 1), loss_of(model))
        history.append(model[1].weight.detach().clone())
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


class Pair(Alone):
    """The first of two processes, without the other one."""

    world = 2


def tiny_steps(config: LoopConfig, norm: bool = False, dropout: float = 0.0) -> Trainer:
    """A trainer after its last step on the global batches of the tiny job."""
    job = TinyJob(config, norm=norm, dropout=dropout)
    trainer = Trainer(job.model(), config)
    for batch in job.batches(0, 0, 1):
        trainer.advance(batch, lambda part: job.loss(trainer.model, part), None)
    return trainer


@pytest.mark.parametrize("parts", [2, 3, 4, 9])
def test_a_batch_in_parts_moves_the_weights_as_the_whole_one(parts: int) -> None:
    config = LoopConfig(steps=6, lr=0.05, warm_up=0)
    whole, piecewise = (tiny_steps(config.model_copy(update={"accumulate": n})) for n in (1, parts))
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(piecewise.model.state_dict()[name], value, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_the_steps_are_those_of_a_plain_loop(kind: Literal["adam", "adamw"]) -> None:
    config = LoopConfig(
        steps=5, lr=0.02, warm_up=0, schedule="constant", clip_norm=None, ema=0, optimiser=kind, weight_decay=0.3
    )
    job = TinyJob(config, norm=False)
    model = job.model()
    plain = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](model.parameters(), lr=0.02, weight_decay=0.3)
    for batch in job.batches(0, 0, 1):
        plain.zero_grad()
        job.loss(model, batch)["bce"].backward()
        plain.step()
    trainer = tiny_steps(config)
    for name, value in model.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], value), name
        assert torch.equal(trainer.average[name], value), name


def test_what_is_drawn_at_random_depends_on_seed_and_step_alone() -> None:
    config = LoopConfig(steps=8, lr=0.05, warm_up=0)
    job, seen = TinyJob(config, dropout=0.5), dict[int, list[float]]()
    for start in (0, 5):
        trainer = Trainer(job.model(), config)
        trainer.step = start
        for batch in job.batches(start, 0, 1):
            before = {name: value.clone() for name, value in job.model().state_dict().items()}
            trainer.model.load_state_dict(before)
            step = trainer.step
            terms = trainer.advance(batch, lambda part, model=trainer.model: job.loss(model, part), None)
            seen.setdefault(step, []).append(terms["bce"])
            torch.rand(3)  # something else draws in between
    assert [len(losses) for losses in seen.values()] == [1] * 5 + [2] * 3
    assert all(losses[0] == losses[1] for losses in seen.values() if len(losses) == 2)


@pytest.mark.parametrize("kind", ["free", "frozen"])
def test_frozen_batch_norms_keep_their_statistics_and_learn_their_scale(kind: Literal["free", "frozen"]) -> None:
    trainer = tiny_steps(LoopConfig(steps=3, lr=0.05, warm_up=0, batch_norm=kind), norm=True)
    norm = trainer.model.get_submodule("norm")
    assert torch.equal(norm.running_mean, torch.zeros(4)) == (kind == "frozen")
    assert int(norm.num_batches_tracked) == (0 if kind == "frozen" else 3)
    assert not torch.equal(norm.weight, torch.ones(4))


def test_synchronised_batch_norms_need_a_gpu_where_there_is_more_than_one_process() -> None:
    config = LoopConfig(steps=1, batch_norm="sync")
    Trainer(TinyJob(config).model(), config)
    with pytest.raises(ConfigError, match="frozen, or one process"):
        Trainer(TinyJob(config).model(), config, Pair("cpu"))


class Sharing(Alone):
    """The first of several processes; the others say how many clips they have, and have this one's terms."""

    def __init__(self, others: tuple[int, ...], accumulate: int) -> None:
        super().__init__("cpu")
        self.world = 1 + len(others)
        parts = [min(accumulate, clips) for clips in others]
        self._others = [sum(others), 0, sum(parts), sum(part**2 for part in parts)]

    def total(self, values: Tensor) -> Tensor:
        return values + torch.tensor(self._others) if len(values) == 4 else values * self.world


@pytest.mark.parametrize(
    ("own", "others", "accumulate", "waits"),
    [
        (2, (1, 1), 2, True),
        (1, (2, 1), 2, True),
        (3, (2, 4), 4, True),  # as many parts as the mean
        (2, (1, 1), 1, False),
        (2, (2,), 2, False),
        (2, (3,), 2, False),
    ],
)
def test_synchronised_batch_norms_need_as_many_parts_in_each_process(
    own: int, others: tuple[int, ...], accumulate: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `--batch-norm sync --accumulate N` says, without the GPUs that these batch norms need."""
    monkeypatch.setattr(loop_module, "_synced", lambda model, _config, _engine: model)
    said = TrainConfig(out="x", batch_norm="sync", accumulate=accumulate).of_loop()
    config = LoopConfig(steps=1).model_copy(update=said)
    job, engine = TinyJob(config), Sharing(others, accumulate)
    trainer = Trainer(job.model(), config, engine)

    def advance() -> None:
        trainer.advance(clips(0, 0, own), lambda part: job.loss(trainer.model, part), None)

    if waits:
        with pytest.raises(ConfigError, match=r"as many parts in each process.*divides the clips"):
            advance()
    else:
        advance()
    assert trainer.step == (not waits)


def test_bfloat16_computes_under_autocast_with_weights_in_float32() -> None:
    config = LoopConfig(steps=1, precision="bf16")
    job, kinds = TinyJob(config), list[torch.dtype]()
    trainer = Trainer(job.model(), config)
    trainer.model.get_submodule("hidden").register_forward_hook(lambda _m, _i, out: kinds.append(out.dtype))
    trainer.advance(clips(0), lambda part: job.loss(trainer.model, part), None)
    assert kinds == [torch.bfloat16]
    assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}


def test_a_process_without_a_clip_is_an_error_that_says_so() -> None:
    config = LoopConfig(steps=1)
    trainer = Trainer(TinyJob(config).model(), config)
    with pytest.raises(TrainingError, match="fewer workers"):
        trainer.advance(clips(0, 2, 2), lambda part: TinyJob(config).loss(trainer.model, part), None)


def test_the_best_weights_are_kept_and_survive_a_checkpoint() -> None:
    config = LoopConfig(steps=3, lr=0.1, warm_up=0)
    job = TinyJob(config)
    trainer, means = Trainer(job.model(), config), list[dict[str, Tensor]]()
    for batch, miou in zip(job.batches(0, 0, 1), (0.2, 0.6, 0.6), strict=True):
        trainer.advance(batch, lambda part: job.loss(trainer.model, part), None)
        means.append({name: value.clone() for name, value in trainer.average.items()})
        trainer.consider(miou)
    again = Trainer(job.model(), config)
    again.restore(trainer.snapshot())
    for one in (trainer, again):
        assert one.best is not None
        assert (one.best.step, one.best.miou) == (2, 0.6)
        assert all(torch.equal(value, means[1][name]) for name, value in one.chosen().items())


def test_the_mean_weights_are_looked_at_and_put_back() -> None:
    trainer = tiny_steps(LoopConfig(steps=4, lr=0.1, warm_up=0, ema=0.9), norm=True)
    own = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with trainer.averaged() as model:
        assert not model.training
        assert all(torch.equal(value, trainer.average[name]) for name, value in model.state_dict().items())
        assert not torch.equal(model.state_dict()["hidden.weight"], own["hidden.weight"])
    assert all(torch.equal(value, own[name]) for name, value in trainer.model.state_dict().items())


def test_the_checkpoint_of_another_model_is_refused() -> None:
    config = LoopConfig(steps=1)
    trainer = Trainer(TinyJob(config, norm=False).model(), config)
    with pytest.raises(CheckpointMismatch, match="same model"):
        trainer.restore(Trainer(TinyJob(config).model(), config).snapshot())
    with pytest.raises(CheckpointMismatch, match="running mean"):
        trainer.restore(tiny_steps(LoopConfig(steps=1, ema=0)).snapshot())


def test_deterministic_algorithms_are_demanded_within_the_block_alone() -> None:
    with repeatable(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_a_constant_schedule_stays_at_its_peak() -> None:
    config = LoopConfig(steps=100, warm_up=4, schedule="constant")
    assert [config.scale(step) for step in (0, 3, 4, 50, 99)] == pytest.approx([0.25, 1, 1, 1, 1])
