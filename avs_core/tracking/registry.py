"""Model bundles as registered models of MLflow.

A version's source is the folder of a bundle among the artefacts of a run: four plain files, no pickle, no code.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avs_core.errors import BundleError, InputError, NotApplied
from avs_core.tracking.manners import teach_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SCHEME = "models:/"
ARTEFACT = "bundle"
EXPERIMENT = "avs-models"
DEFAULT_STORE = Path("runs")
CACHE = Path("~/.cache/avs/models")

_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[\w.-]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class ResolvedModel:
    """A registered model on this machine. `uri` names the version: an alias may move while a job runs."""

    folder: Path
    name: str
    version: str

    @property
    def uri(self) -> str:
        """`models:/name/version`."""
        return f"{SCHEME}{self.name}/{self.version}"


def resolve_model(
    model: str, tracking_uri: str | None = None, default_store: str | Path = DEFAULT_STORE, cache: Path = CACHE
) -> str:
    """What `load_bundle` takes: `models:/…` as a local folder (`fetch_model`), everything else as it is."""
    if not model.startswith(SCHEME):
        return model
    return str(fetch_model(model, tracking_uri, default_store, cache).folder)


def fetch_model(
    uri: str, tracking_uri: str | None = None, default_store: str | Path = DEFAULT_STORE, cache: Path = CACHE
) -> ResolvedModel:
    """Download `models:/name@alias` or `models:/name/version`, once per machine.

    The store is found as by `start_run`. Raises `InputError` for another form of URI, `BundleError` for a model the
    registry does not have, and `StorageError` when it can't be reached.
    """
    asked = _REFERENCE.fullmatch(uri)
    if asked is None:
        raise InputError(f"a registered model must be models:/name@alias or models:/name/version, got {uri}")
    teach_mlflow()
    from avs_core.tracking.mlflow_store import connect, tracking_address, translated

    address = tracking_address(Path(default_store), tracking_uri)
    with _explained(uri), translated():
        client = connect(address)
        found = _version(client, asked)
        resolved = ResolvedModel(_folder(cache, address, found), str(found.name), str(found.version))
        if not resolved.folder.is_dir():
            _download(client, address, found, resolved.folder)
    return resolved


def register_bundle(
    folder: str | Path,
    name: str,
    alias: str,
    tracking_uri: str | None = None,
    default_store: str | Path = DEFAULT_STORE,
) -> str:
    """Log a bundle as artefacts of a run, make a version of model `name` of it and let the alias point there.

    Returns the version. The store is found as by `start_run`. Raises `BundleError` for what the registry refuses
    and for a folder that is none, `StorageError` when it can't be reached.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BundleError(f"a bundle must be a folder, got {folder}")
    teach_mlflow()
    from avs_core.tracking.mlflow_store import (
        artefact_location,
        connect,
        ensure_experiment,
        tracking_address,
        translated,
    )

    address = tracking_address(Path(default_store), tracking_uri)
    with _explained(f"{SCHEME}{name}@{alias}"), translated():
        client = connect(address)
        experiment = ensure_experiment(client, EXPERIMENT, artefact_location(address, Path(default_store)))
        run_id = client.create_run(experiment, run_name=f"register {name}").info.run_id
        client.log_artifacts(run_id, str(folder), ARTEFACT)
        client.set_terminated(run_id)
        _ensure_model(client, name)
        source = f"{client.get_run(run_id).info.artifact_uri}/{ARTEFACT}"
        made = client.create_model_version(name, source, run_id, await_creation_for=0)
        client.set_registered_model_alias(name, alias, made.version)
    return str(made.version)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except NotApplied as refusal:
        raise BundleError(f"the model registry cannot serve {uri}: {refusal}") from refusal


def _version(client: "MlflowClient", asked: re.Match[str]) -> "ModelVersion":
    if asked["alias"]:
        return client.get_model_version_by_alias(asked["name"], asked["alias"])
    return client.get_model_version(asked["name"], asked["version"])


def _ensure_model(client: "MlflowClient", name: str) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)


def _folder(cache: Path, address: str, found: "ModelVersion") -> Path:
    """Where a version is kept: versions of two registries, and of a model that was deleted and made anew, differ."""
    identity = f"{address}\n{found.name}\n{found.version}\n{found.creation_timestamp}"
    return cache.expanduser() / f"{found.name}-{found.version}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _download(client: "MlflowClient", address: str, found: "ModelVersion", folder: Path) -> None:
    """Into the folder, whole or not at all; of several at once the first one's copy stays."""
    from mlflow.artifacts import download_artifacts

    source = client.get_model_version_download_uri(found.name, found.version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        got = Path(download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=address))
        try:
            got.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
