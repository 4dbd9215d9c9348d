"""Real torchrun, real Ray Train workers, a real S3 server and a real MLflow store train the tiny job."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError

from avs_core import storage
from avs_core.errors import ConfigError
from avs_core.pipelines.train import train_jobs
from avs_core.pipelines.train_config import TrainConfig, worker_count
from avs_core.pipelines.train_phase import Phase
from avs_core.tracking import fetch_model
from avs_core.tracking.manners import teach_mlflow
from avs_core.training.checkpoints import Checkpoints
from avs_core.training.loop import LoopConfig
from tests.s3_server import S3Server
from tests.training.driving import finish, start
from tests.training.tiny_job import TinyJob, curve, global_losses

LOOP = {"steps": 12, "lr": 0.05, "warm_up": 2, "checkpoint_every": 4, "validate_every": 6}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
TOLERANCE = 1e-5
"""Of a loss: two processes sum in another order than one."""


def job(folder: Path, **more: Any) -> dict[str, Any]:
    return {"loop": LOOP, "norm": False, "curve": str(folder / "curve.jsonl")} | more


def losses(folder: Path) -> dict[int, float]:
    return global_losses(curve(folder / "curve.jsonl"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The curve of one process."""
    folder = tmp_path_factory.mktemp("alone")
    settings = job(folder)
    config = TrainConfig(out=str(folder / "out"), engine="alone", device="cpu", tracking=False)
    train_jobs([TinyJob(LoopConfig.model_validate(settings.pop("loop")), **settings)], config, {})
    return losses(folder)


@pytest.mark.integration
def test_two_processes_that_work_in_parts_come_to_the_same_weights(tmp_path: Path) -> None:
    weights = []
    for name, parts, launcher in (("one", 1, (sys.executable,)), ("two", 2, TORCHRUN)):
        settings = {"loop": LOOP | {"accumulate": parts}, "norm": False}
        finish(start(str(tmp_path / name), settings, {"device": "cpu"}, launcher=launcher))
        weights.append(safetensors.torch.load_file(tmp_path / name / "tiny" / "chosen.safetensors"))
    one, two = weights
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-5, rtol=1e-4)


@pytest.mark.integration
@pytest.mark.ci_slice
def test_two_processes_of_torchrun_train_as_one(tmp_path: Path, alone: dict[int, float]) -> None:
    done = finish(start(str(tmp_path / "out"), job(tmp_path), {"device": "cpu"}, launcher=TORCHRUN))
    assert done["step"] in (6, 12)
    assert {(point.rank, point.world, point.clips) for point in curve(tmp_path / "curve.jsonl")} == {
        (0, 2, 2),
        (1, 2, 2),
    }
    assert losses(tmp_path) == pytest.approx(alone, abs=TOLERANCE)


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_two_ray_workers_with_checkpoints_on_s3_and_a_registered_bundle(
    tmp_path: Path, s3: S3Server, s3_bucket: str, alone: dict[int, float]
) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    config = {
        "workers": "2",
        "device": "cpu",
        "tracking": True,
        "tracking_uri": store,
        "register_as": "tiny@best",
    }
    finish(start(f"{s3_bucket}/run", job(tmp_path), config, s3.environment), timeout_s=550)
    assert len(curve(tmp_path / "curve.jsonl")) == 2 * 12, "no step was done twice: no worker failed"
    assert losses(tmp_path) == pytest.approx(alone, abs=TOLERANCE)
    checkpoints = Checkpoints(f"{s3_bucket}/run/tiny", keep=2)
    assert checkpoints.steps() == [8, 12]
    assert checkpoints.newest() is not None
    assert "miou" in json.loads(storage.read_bytes(f"{s3_bucket}/run/bundle/figures.json"))
    _check_run(store)


def _check_run(store: str) -> None:
    teach_mlflow()
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=store, registry_uri=store)
    experiment = client.get_experiment_by_name("avs-train")
    runs = [run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == "test/tiny"]
    assert len(runs) == 1, "the first worker alone tracks"
    assert [point.step for point in client.get_metric_history(runs[0].info.run_id, "train/loss")] == list(range(12))
    assert [point.step for point in client.get_metric_history(runs[0].info.run_id, "val/miou")] == [6, 12]
    assert runs[0].data.params["loop.steps"] == "12"
    assert runs[0].data.tags["registered"] == "models:/tiny/1"
    assert [file.path for file in client.list_artifacts(runs[0].info.run_id, "samples")] == [
        "samples/step_00000006",
        "samples/step_00000012",
    ]
    assert client.get_model_version_by_alias("tiny", "best").version in (1, "1")


@pytest.mark.integration
def test_a_loss_that_is_no_number_ends_workers_at_once(tmp_path: Path) -> None:
    driver = start(str(tmp_path / "out"), job(tmp_path, nan_at=9), {"workers": "2", "device": "cpu"})
    _, err = driver.communicate(timeout=280)
    assert driver.returncode == 1
    assert "TrainingError: loss and gradient must be finite; at step 9" in err
    steps = [point.step for point in curve(tmp_path / "curve.jsonl")]
    assert steps.count(9) == 2, "each of two workers, once: nobody tried again"
    assert {path.name for path in (tmp_path / "out" / "tiny").glob("bad_batch_*")} == {
        "bad_batch_0.pt",
        "bad_batch_1.pt",
    }


@pytest.mark.integration
def test_a_tracking_server_that_is_away_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TrainConfig(
        out=str(tmp_path), engine="alone", device="cpu", tracking_uri="http://127.0.0.1:9", register_as="tiny@best"
    )
    with caplog.at_level(logging.WARNING):
        (done,) = train_jobs([TinyJob(LoopConfig.model_validate(LOOP))], config, {})
    assert done.left_uri == str(tmp_path / "bundle")
    assert "is not registered as tiny@best" in caplog.text
    assert "127.0.0.1:9" in caplog.text


def test_auto_chooses_by_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert TrainConfig(out="x").chosen_engine() == "alone"
    assert TrainConfig(out="x", workers="1:2").chosen_engine() == "ray"
    assert TrainConfig(out="x", workers="2", engine="alone").chosen_engine() == "alone"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert TrainConfig(out="x").chosen_engine() == "ray"
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    assert TrainConfig(out="x").chosen_engine() == "torchrun"


def test_workers_are_a_number_or_a_range() -> None:
    assert worker_count("3") == 3
    assert worker_count("1:4") == (1, 4)
    for wrong in ("", "0", "two", "4:1", "1:2:3", "-1", "0:2"):
        with pytest.raises(ValueError, match="workers must be N or MIN:MAX"):
            worker_count(wrong)


@pytest.mark.parametrize(
    "wrong", [{"workers": "2:1"}, {"register": "name"}, {"register": "@best"}, {"engine": "spark"}, {"colour": "red"}]
)
def test_a_wrong_setting_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig.model_validate({"out": "x"} | wrong)


def test_the_command_line_may_change_how_a_recipe_is_computed(tmp_path: Path) -> None:
    said = TrainConfig(out="x", accumulate=2, precision="bf16", batch_norm="frozen", deterministic=True)
    job = TinyJob(LoopConfig.model_validate(LOOP))
    loop = Phase(job, said, {}, None, True, tmp_path).loop
    assert loop == LoopConfig.model_validate(
        LOOP | {"accumulate": 2, "precision": "bf16", "batch_norm": "frozen", "deterministic": True}
    )
    assert Phase(job, TrainConfig(out="x"), {}, None, True, tmp_path).loop == job.loop


def test_no_phase_begins_where_a_later_one_takes_no_batch_in_parts(tmp_path: Path) -> None:
    loop = LoopConfig.model_validate(LOOP)
    jobs = [TinyJob(loop, name="first"), TinyJob(loop, name="second", crosses=True)]
    config = TrainConfig(out=str(tmp_path), engine="alone", device="cpu", tracking=False, accumulate=2)
    with pytest.raises(ConfigError, match="second pairs the clips of a batch"):
        train_jobs(jobs, config, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_what_is_registered_is_the_bundle_as_a_python_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = TrainConfig(out=str(tmp_path), engine="alone", device="cpu", tracking=False, register_as="tiny@best")
    train_jobs([TinyJob(LoopConfig.model_validate(LOOP))], config, {})
    (described,) = tmp_path.rglob("MLmodel")
    assert "loader_module: avs_core.pipelines.pyfunc" in described.read_text()
    fetched = fetch_model("models:/tiny@best", default_store=tmp_path, cache=tmp_path / "cache").folder
    found, left = ({path.name: path.read_bytes() for path in at.iterdir()} for at in (fetched, tmp_path / "bundle"))
    assert found == left != {}


def test_registering_needs_a_bundle(tmp_path: Path) -> None:
    class Bare(TinyJob):
        def finish(self, model: object, out: Path) -> None:
            return None

    config = TrainConfig(out=str(tmp_path), engine="alone", device="cpu", tracking=False, register_as="tiny@best")
    with pytest.raises(ConfigError, match="leaves none"):
        train_jobs([Bare(LoopConfig.model_validate(LOOP))], config, {})
