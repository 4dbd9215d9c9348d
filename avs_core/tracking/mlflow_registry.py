"""The calls of MLflow behind the registry, imported when it is asked."""

import hashlib
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion

from avs_core.tracking.mlflow_function import bundle_within, write_model
from avs_core.tracking.mlflow_store import artefact_location, connect, ensure_experiment, tracking_address, translated
from avs_core.tracking.registry import PythonFunction

ARTEFACT = "model"
EXPERIMENT = "avs-models"


def fetch(name: str, alias: str | None, version: str, store: Path, uri: str | None, cache: Path) -> tuple[Path, str]:
    """Bring a version's bundle into the cache: the one the alias points to, or else that number; folder and number.

    Raises as `translated`, and `BundleError` for a model that holds none.
    """
    address = tracking_address(store, uri)
    with translated():
        client = connect(address)
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
        folder = cached_folder(cache, address, found)
        if not folder.is_dir():
            _download(client, address, found, folder)
    return folder, str(found.version)


def register(folder: Path, function: PythonFunction, name: str, alias: str, store: Path, uri: str | None) -> str:
    """Log a bundle to a run of its own, and make it a version that the alias points to. Raises as `translated`."""
    address = tracking_address(store, uri)
    with translated():
        client = connect(address)
        experiment = ensure_experiment(client, EXPERIMENT, artefact_location(address, store))
        run_id = client.create_run(experiment, run_name=f"register {name}").info.run_id
        with tempfile.TemporaryDirectory() as scratch:
            model = Path(scratch) / ARTEFACT
            write_model(model, folder, function, run_id)
            client.log_artifacts(run_id, str(model), ARTEFACT)
        client.set_terminated(run_id)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        source = f"{client.get_run(run_id).info.artifact_uri}/{ARTEFACT}"
        made = client.create_model_version(name, source, run_id, await_creation_for=0)
        client.set_registered_model_alias(name, alias, made.version)
    return str(made.version)


def cached_folder(cache: Path, address: str, found: ModelVersion) -> Path:
    """Where a version is kept: versions of two registries, and of a model that was deleted and made anew, differ."""
    identity = f"{address}\n{found.name}\n{found.version}\n{found.creation_timestamp}"
    return cache.expanduser() / f"{found.name}-{found.version}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _download(client: MlflowClient, address: str, found: ModelVersion, folder: Path) -> None:
    """The bundle into the folder, whole or not at all; of several at once the first one's copy stays."""
    source = client.get_model_version_download_uri(found.name, found.version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        got = bundle_within(Path(download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=address)))
        try:
            got.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
