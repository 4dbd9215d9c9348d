"""Bundles go into a real registry and come back as they were."""

import shutil
from pathlib import Path

import pytest
import yaml

from avs_core.errors import BundleError, InputError, StorageError
from avs_core.tracking import PythonFunction, fetch_model, register_bundle, resolve_model
from avs_core.tracking.manners import teach_mlflow


def bundle(folder: Path, weights: bytes) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_alias_moves_and_a_version_stays(store: Path, function: PythonFunction, tmp_path: Path) -> None:
    first, second = bundle(tmp_path / "one", b"one"), bundle(tmp_path / "two", b"two")
    cache = tmp_path / "cache"
    assert register_bundle(first, function, "tpavi", "best", default_store=store) == "1"
    one = fetch_model("models:/tpavi@best", default_store=store, cache=cache)
    assert register_bundle(second, function, "tpavi", "best", default_store=store) == "2"
    two = fetch_model("models:/tpavi@best", default_store=store, cache=cache)
    assert (one.uri, two.uri) == ("models:/tpavi/1", "models:/tpavi/2")
    assert content(one.folder) == content(first)
    assert content(two.folder) == content(second)
    assert resolve_model(one.uri, default_store=store, cache=cache) == str(one.folder)
    assert sorted(cache.iterdir()) == sorted([one.folder, two.folder])


def test_a_version_is_downloaded_once(store: Path, function: PythonFunction, tmp_path: Path) -> None:
    folder, cache = bundle(tmp_path / "one", b"one"), tmp_path / "cache"
    register_bundle(folder, function, "once", "best", default_store=store)
    fetched = fetch_model("models:/once@best", default_store=store, cache=cache).folder
    (fetched / "mark").write_text("still the same copy")
    assert "mark" in content(fetch_model("models:/once@best", default_store=store, cache=cache).folder)
    shutil.rmtree(fetched)
    assert content(fetch_model("models:/once@best", default_store=store, cache=cache).folder) == content(folder)


def test_what_is_no_registered_model_stays_as_it_is() -> None:
    assert resolve_model("tpavi-light") == "tpavi-light"
    assert resolve_model("s3://models/tpavi") == "s3://models/tpavi"


@pytest.mark.parametrize("uri", ["models:/tpavi", "models:/tpavi/Production", "models:/../x@y", "models:/a b@c"])
def test_another_form_of_reference_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name@alias"):
        fetch_model(uri, default_store=tmp_path)


def test_faults_say_what_is_missing(store: Path, function: PythonFunction, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="models:/nobody@best"):
        fetch_model("models:/nobody@best", default_store=store, cache=tmp_path)
    with pytest.raises(BundleError, match="folder"):
        register_bundle(tmp_path / "none", function, "x", "best", default_store=store)
    with pytest.raises(InputError, match="name@alias"):
        register_bundle(bundle(tmp_path / "one", b"one"), function, "x/y", "best", default_store=store)
    with pytest.raises(StorageError):
        fetch_model("models:/x@best", tracking_uri="http://127.0.0.1:9", cache=tmp_path)


def version_of(folder: Path, name: str, store: Path) -> None:
    """Make a version of a folder as it is, as bundles were registered before they became functions."""
    from mlflow import MlflowClient

    from avs_core.tracking.mlflow_registry import EXPERIMENT
    from avs_core.tracking.mlflow_store import tracking_address

    client = MlflowClient(address := tracking_address(store, None), registry_uri=address)
    run = client.create_run(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    client.log_artifacts(run.info.run_id, str(folder), "bundle")
    client.create_registered_model(name)
    client.create_model_version(name, f"{run.info.artifact_uri}/bundle", run.info.run_id)


def test_bundles_that_were_registered_as_bare_folders_are_still_found(
    store: Path, function: PythonFunction, tmp_path: Path
) -> None:
    old = bundle(tmp_path / "old", b"old")
    register_bundle(old, function, "of-now", "best", default_store=store)  # makes the store, if this test is the first
    version_of(old, "of-before", store)
    assert content(fetch_model("models:/of-before/1", default_store=store, cache=tmp_path / "c").folder) == content(old)


def test_a_version_is_a_model_that_names_its_loader_and_holds_no_pickle(
    store: Path, function: PythonFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach_mlflow()
    from mlflow.models import Model

    from avs_core.tracking.mlflow_function import write_model

    (tmp_path / "uv.lock").write_text('[[package]]\nsource = { registry = "https://packages.example" }\n')
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    write_model(model := tmp_path / "model", bundle(tmp_path / "one", b"one"), function, "run")
    described = Model.load(str(model))
    assert described.flavors["python_function"]["loader_module"] == function.loader
    assert described.flavors["python_function"]["config"] == dict(function.settings)
    assert described.get_input_schema().required_input_names() == ["video_uri"]
    outputs = described.get_output_schema().to_dict()
    assert [(column["name"], column["type"], column["required"]) for column in outputs] == [
        ("object_id", "integer", True),
        ("category", "string", False),
    ]
    assert described.load_input_example(str(model)).to_dict("records") == [*function.example]
    assert "avs-on-ray==0.1.0" in (model / "requirements.txt").read_text().split()
    texts = {path.name for path in model.rglob("*") if path.is_file()} - {"model.safetensors", "config.json"}
    assert texts == {
        "MLmodel",
        "conda.yaml",
        "input_example.json",
        "python_env.yaml",
        "requirements.txt",
        "serving_input_example.json",
    }
    assert not [path for path in model.rglob("*") if path.is_file() and b"://" in path.read_bytes()]


@pytest.mark.parametrize("data", [None, "data/none", "../elsewhere", ".."])
def test_another_kind_of_model_is_no_bundle(data: str | None, tmp_path: Path) -> None:
    teach_mlflow()
    from avs_core.tracking.mlflow_function import bundle_within

    bundle(tmp_path / "elsewhere", b"not ours to move")
    (folder := tmp_path / "model").mkdir()
    flavor = {"loader_module": "x"} | ({"data": data} if data else {})
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": flavor}}))
    with pytest.raises(BundleError, match="--register"):
        bundle_within(folder)
