"""A job from start to bundle in one process: resumed bit for bit, tracked, the best kept, stopped where it must."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from avs_core.errors import CheckpointMismatch, ConfigError, StorageError, TrainingError
from avs_core.tracking import NullRun
from avs_core.training.engine import Alone
from avs_core.training.job import TrainingJob
from avs_core.training.loop import LoopConfig
from avs_core.training.train import CHOSEN, Trained, train
from tests.training.test_checkpoints import files_limited_to
from tests.training.tiny_job import TinyJob

LOOP = LoopConfig(steps=20, lr=0.05, warm_up=4, checkpoint_every=5, validate_every=8)


class Notes(NullRun):
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.metrics: dict[str, dict[int, float]] = {}
        self.files: list[str] = []
        self.tags: dict[str, str] = {}

    def log_metrics(self, metrics: Mapping[str, int | float], step: int) -> None:
        for name, value in metrics.items():
            self.metrics.setdefault(name, {})[step] = value

    def log_file(self, path: str | Path, name: str) -> None:
        assert Path(path).is_file()
        self.files.append(name)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags |= tags


@dataclass(frozen=True)
class Interrupted(TinyJob):
    """The machine goes away before batch `until`."""

    until: int = 13

    def batches(self, start: int, rank: int, world: int):  # type: ignore[no-untyped-def] - as in TinyJob
        for number, batch in enumerate(super().batches(start, rank, world), start):
            if number == self.until:
                raise KeyboardInterrupt
            yield batch


@dataclass(frozen=True)
class Scored(TinyJob):
    """The validation split says what the test wants."""

    scores: dict[int, float] = field(default_factory=dict)
    looks: list[int] = field(default_factory=list)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        self.looks.append(1)
        return {"miou": list(self.scores.values())[len(self.looks) - 1]} if self.scores else {}

    def finish(self, model: nn.Module, out: Path) -> Path | None:
        return None


def run(job: TrainingJob, out: Path, weights: str | None = None) -> tuple[Trained, Notes]:
    notes, scratch = Notes(), out / f"scratch-{len(list(out.glob('scratch-*')))}"
    scratch.mkdir(parents=True)
    return train(job, Alone("cpu"), str(out), notes, scratch, weights), notes


def test_the_tiny_job_is_a_training_job() -> None:
    assert isinstance(TinyJob(LOOP), TrainingJob)


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, told = run(TinyJob(LOOP, dropout=0.3), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(LOOP, dropout=0.3), tmp_path / "again")
    again, rest = run(TinyJob(LOOP, dropout=0.3), tmp_path / "again")
    assert rest.tags == {"resumed_at_step": "10"}
    losses = told.metrics["train/loss"]
    assert list(rest.metrics["train/loss"].items()) == list(losses.items())[10:]
    assert (again.step, again.metrics) == (whole.step, whole.metrics)
    assert Path(again.weights).read_bytes() == Path(whole.weights).read_bytes()


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, _ = run(TinyJob(LOOP), tmp_path)
    second, told = run(TinyJob(LOOP), tmp_path)
    assert "train/loss" not in told.metrics
    assert replace(second, left=None) == replace(first, left=None)


def test_everything_is_told(tmp_path: Path) -> None:
    _, told = run(TinyJob(LOOP), tmp_path)
    losses = told.metrics["train/loss"]
    assert list(losses) == list(range(20))
    assert told.metrics["train/lr"][19] == pytest.approx(LOOP.lr * LOOP.scale(19))
    assert list(told.metrics["val/miou"]) == [8, 16, 20]
    assert told.metrics["epoch/bce"][16] == pytest.approx(sum(losses[step] for step in range(8, 16)) / 8)
    assert told.files == [f"samples/step_{step:08d}/answer.png" for step in (8, 16, 20)]


def test_the_best_look_at_the_validation_split_decides(tmp_path: Path) -> None:
    trained, _ = run(Scored(LOOP, scores={8: 0.2, 16: 0.7, 20: 0.4}), tmp_path)
    assert (trained.step, trained.metrics) == (16, {"miou": 0.7})
    best = tmp_path / "tiny" / "checkpoint_00000020" / "best.safetensors"
    assert Path(trained.weights).read_bytes() == best.read_bytes()


def test_without_a_validation_split_the_last_mean_weights_are_chosen(tmp_path: Path) -> None:
    trained, _ = run(Scored(LOOP), tmp_path)
    assert (trained.step, trained.metrics, trained.left) == (20, {}, None)
    last = tmp_path / "tiny" / "checkpoint_00000020" / "average.safetensors"
    assert Path(trained.weights).read_bytes() == last.read_bytes()


def test_the_bundle_is_of_the_chosen_weights_and_lies_in_the_out_folder(tmp_path: Path) -> None:
    trained, _ = run(TinyJob(LOOP), tmp_path)
    assert trained.left_uri == str(tmp_path / "bundle")
    figures = json.loads((tmp_path / "bundle" / "figures.json").read_text())
    assert figures["miou"] == trained.metrics["miou"]


def test_a_phase_starts_from_the_weights_of_the_one_before(tmp_path: Path) -> None:
    first, _ = run(TinyJob(LOOP), tmp_path)
    still = TinyJob(LoopConfig(steps=1, lr=1e-30, weight_decay=0, batch_norm="frozen"), name="second")
    second, _ = run(still, tmp_path, first.weights)
    before, after = (safetensors.torch.load_file(one.weights) for one in (first, second))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with pytest.raises(CheckpointMismatch, match="same model"):
        run(TinyJob(LOOP, name="other", norm=False), tmp_path, first.weights)


def test_another_loop_may_be_given(tmp_path: Path) -> None:
    _, own = run(TinyJob(LOOP, norm=False), tmp_path / "own")
    in_parts, scratch = Notes(), tmp_path / "scratch"
    scratch.mkdir()
    loop = LOOP.model_copy(update={"accumulate": 2, "deterministic": True})
    train(TinyJob(LOOP, norm=False), Alone("cpu"), str(tmp_path / "parts"), in_parts, scratch, loop=loop)
    assert in_parts.metrics["train/loss"] == pytest.approx(own.metrics["train/loss"], abs=1e-5)
    assert in_parts.metrics["train/loss"] != own.metrics["train/loss"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_loss_that_pairs_clips_takes_no_batch_in_parts(tmp_path: Path) -> None:
    job = TinyJob(LOOP.model_copy(update={"accumulate": 2}), crosses=True)
    with pytest.raises(ConfigError, match=r"tiny pairs the clips of a batch.*--accumulate 2.*leave it out"):
        run(job, tmp_path)
    assert not (tmp_path / "tiny").exists()
    trained, _ = run(replace(job, loop=LOOP), tmp_path)
    assert trained.step > 0


def test_a_loss_that_is_no_number_stops_with_its_batch_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 7: .*nan.*bad_batch_0\.pt"):
        run(TinyJob(LOOP, nan_at=7), tmp_path)
    saved = torch.load(tmp_path / "tiny" / "bad_batch_0.pt", weights_only=True)
    assert math.isnan(float(saved["sound"].mean()))
    assert not (tmp_path / "tiny" / CHOSEN).exists()


def test_data_that_ends_early_says_when(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Short(TinyJob):
        def batches(self, start: int, rank: int, world: int):  # type: ignore[no-untyped-def] - as in TinyJob
            yield from list(super().batches(start, rank, world))[:6]

    with pytest.raises(TrainingError, match="needs 20 batches, the data ended after 6"):
        run(Short(LOOP), tmp_path)


def test_a_full_disk_stops_the_run_which_then_goes_on_from_the_checkpoint_before(tmp_path: Path) -> None:
    whole, _ = run(TinyJob(LOOP), tmp_path / "whole")

    @dataclass(frozen=True)
    class Filling(TinyJob):
        def batches(self, start: int, rank: int, world: int):  # type: ignore[no-untyped-def] - as in TinyJob
            batches = super().batches(start, rank, world)
            yield from (next(batches) for _ in range(7))
            with files_limited_to(1000):
                yield from batches

    with pytest.raises(StorageError, match="could not write"):
        run(Filling(LOOP), tmp_path / "full")
    again, told = run(TinyJob(LOOP), tmp_path / "full")
    assert told.tags == {"resumed_at_step": "5"}
    assert Path(again.weights).read_bytes() == Path(whole.weights).read_bytes()
