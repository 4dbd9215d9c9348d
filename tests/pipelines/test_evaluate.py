"""Evaluation on real Ray and without it, on files, tracked by a real MLflow store."""

import json
from pathlib import Path

import mlflow
import pytest

from avs_core.datasets.opening import open_dataset
from avs_core.errors import ConfigError, DataError
from avs_core.pipelines.evaluate import evaluate_model
from avs_core.pipelines.evaluate_config import EvaluateConfig
from avs_core.pipelines.evaluation_job import run_evaluation
from tests.avsbench_fixtures import write_benchmark, write_ms3
from tests.evaluation.bundles import tiny_bundle

RAYS_OWN = pytest.mark.filterwarnings("default")  # its warnings differ between its versions

SPLITS = {"train": 1, "val": 1, "test": 2}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bundle")
    tiny_bundle(folder)
    return str(folder)


def settings(**changes: object) -> EvaluateConfig:
    return EvaluateConfig.model_validate({"tracking": False, "figures": False, "device": "cpu", **changes})


@pytest.mark.integration
@pytest.mark.timeout(600)
@RAYS_OWN
def test_ray_and_this_process_give_identical_figures(bundle: str, tmp_path: Path) -> None:
    data = open_dataset(str(write_benchmark(tmp_path / "data", SPLITS)))
    here = evaluate_model(bundle, data, settings(workers=0))
    on_ray = evaluate_model(bundle, data, settings(workers=2))
    assert on_ray == here
    assert here.clips == 4
    assert set(here.settings) == {"s4", "ms3"}
    assert here.listening is not None
    assert here.listening.swap is not None


@pytest.mark.integration
@pytest.mark.timeout(600)
@RAYS_OWN
def test_a_damaged_clip_stops_the_job_on_ray_and_is_named(bundle: str, tmp_path: Path) -> None:
    root = write_ms3(tmp_path / "data", SPLITS)
    mask = sorted(root.glob("ms3_data/gt_masks/test/*/*.png"))[0]
    mask.write_bytes(mask.read_bytes()[:40])
    with pytest.raises(DataError, match=mask.name):
        evaluate_model(bundle, open_dataset(str(root)), settings(workers=2, controls=False))


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_report_and_figures_are_written_and_tracked(
    bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    data = open_dataset(str(write_benchmark(tmp_path / "data", SPLITS)))
    done = run_evaluation(bundle, data, settings(workers=0, tracking=True, figures=True, out=str(tmp_path / "out")))
    written = json.loads(done.json.read_text())
    assert written["overall"]["miou"] == done.report.overall.miou
    assert written["data_version"] == data.version
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("avs-evaluate").experiment_id])
    assert run.data.metrics["miou"] == pytest.approx(done.report.overall.miou)
    assert run.data.metrics["swap.delta_foreign"] == pytest.approx(done.report.listening.swap.delta_foreign)
    assert run.data.tags["data_version"] == data.version
    assert run.info.status == "FINISHED"
    logged = {file.path for file in client.list_artifacts(run.info.run_id, "figures")}
    assert logged == {f"figures/{path.name}" for path in done.figures}
    assert "figures/tsne.png" in logged


def test_wrong_settings_are_refused_before_anything_is_read(bundle: str, tmp_path: Path) -> None:
    data = open_dataset(str(write_ms3(tmp_path / "data", SPLITS)))
    with pytest.raises(ConfigError, match="split"):
        evaluate_model(bundle, data, settings(workers=0, split="nowhere"))
