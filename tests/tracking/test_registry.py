"""Bundles go into a real registry and come back as they were."""

import shutil
from pathlib import Path

import pytest

from avs_core.errors import BundleError, InputError, StorageError
from avs_core.tracking import fetch_model, register_bundle, resolve_model


def bundle(folder: Path, weights: bytes) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_alias_moves_and_a_version_stays(store: Path, tmp_path: Path) -> None:
    first, second = bundle(tmp_path / "one", b"one"), bundle(tmp_path / "two", b"two")
    cache = tmp_path / "cache"
    assert register_bundle(first, "tpavi", "best", default_store=store) == "1"
    one = fetch_model("models:/tpavi@best", default_store=store, cache=cache)
    assert register_bundle(second, "tpavi", "best", default_store=store) == "2"
    two = fetch_model("models:/tpavi@best", default_store=store, cache=cache)
    assert (one.uri, two.uri) == ("models:/tpavi/1", "models:/tpavi/2")
    assert content(one.folder) == content(first)
    assert content(two.folder) == content(second)
    assert resolve_model(one.uri, default_store=store, cache=cache) == str(one.folder)
    assert sorted(cache.iterdir()) == sorted([one.folder, two.folder])


def test_a_version_is_downloaded_once(store: Path, tmp_path: Path) -> None:
    folder, cache = bundle(tmp_path / "one", b"one"), tmp_path / "cache"
    register_bundle(folder, "once", "best", default_store=store)
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


def test_faults_say_what_is_missing(store: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="models:/nobody@best"):
        fetch_model("models:/nobody@best", default_store=store, cache=tmp_path)
    with pytest.raises(BundleError, match="folder"):
        register_bundle(tmp_path / "none", "x", "best", default_store=store)
    with pytest.raises(InputError, match="name@alias"):
        register_bundle(bundle(tmp_path / "one", b"one"), "x/y", "best", default_store=store)
    with pytest.raises(StorageError):
        fetch_model("models:/x@best", tracking_uri="http://127.0.0.1:9", cache=tmp_path)
