"""`avs train`: what it lists, prints and refuses, with its exit codes. The tiny job stands for a recipe's phases."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import avs_core.recipes
from avs_core.recipes import RECIPES
from avs_core.training.job import TrainingJob
from avs_core.training.loop import LoopConfig
from avs_core.training.materials import Materials
from jobs.main import DONE, FAILED, USAGE, main
from tests.training.tiny_job import TinyJob

ALONE = ("--engine", "alone", "--device", "cpu", "--no-tracking")


@dataclass(frozen=True)
class TwoPhases:
    """A recipe of two tiny phases."""

    name: str = "tiny"
    about: str = "two phases of the tiny job"
    nan_at: int | None = None
    composes: bool = False

    def jobs(self, materials: Materials) -> tuple[TrainingJob, ...]:
        loop = LoopConfig(steps=materials.steps or 8, seed=materials.seed, checkpoint_every=3)
        return TinyJob(loop, name="first"), TinyJob(loop, name="second", nan_at=self.nan_at)


def use(recipe: TwoPhases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avs_core.recipes, "RECIPES", (*RECIPES, recipe))


def test_list_has_a_line_for_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--list"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [recipe.name for recipe in RECIPES]
    assert all(line.endswith(recipe.about) for line, recipe in zip(lines, RECIPES, strict=True))


def test_phases_in_order_and_a_line_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(TwoPhases(), monkeypatch)
    assert main(["train", "tiny", "--out", str(tmp_path), "--steps", "5", "--json", *ALONE]) == DONE
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(phase["name"], phase["step"]) for phase in told["phases"]] == [("first", 5), ("second", 5)]
    assert told["bundle"] == str(tmp_path / "bundle")
    assert main(["train", "tiny", "--out", str(tmp_path), "--steps", "5", *ALONE]) == DONE
    assert f"bundle in {tmp_path / 'bundle'}" in capsys.readouterr().out


def test_a_training_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(TwoPhases(nan_at=2), monkeypatch)
    assert main(["train", "tiny", "--out", str(tmp_path), *ALONE]) == FAILED
    assert "loss and gradient must be finite; at step 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "needs a recipe and a folder"),
        (["s4-r50"], "needs a recipe and a folder"),
        (["s4-r51", "--out", "x"], "a recipe must be one of"),
        (["s4-r50", "--out", "x"], "--data"),
        (["s4-r50", "--out", "x", "--workers", "2:1"], "MIN:MAX"),
        (["s4-r50", "--out", "x", "--register", "name"], "NAME@ALIAS"),
        (["s4-r50", "--out", "ftp://x", "--data", "gs://y"], "s3://"),
    ],
)
def test_wrong_usage_says_what_is_right(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == USAGE
    assert says in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
