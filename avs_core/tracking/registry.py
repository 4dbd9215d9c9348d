"""Model bundles as registered models of MLflow.

A version's source is a model of MLflow's python_function flavour among the artefacts of a run: the bundle as it is and
a few text files, one of which names the module that loads it. No pickle, no code. The source of versions made before
that is the folder of the bundle itself; both are fetched alike.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from avs_core.errors import BundleError, InputError, NotApplied
from avs_core.tracking.manners import teach_mlflow

SCHEME = "models:/"
DEFAULT_STORE = Path("runs")
CACHE = Path("~/.cache/avs/models")

_REFERENCE = re.compile(r"models:/(?P<name>[\w.-]+)(?:@(?P<alias>[\w.-]+)|/(?P<version>\d+))")


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


@dataclass(frozen=True)
class PythonFunction:
    """How `mlflow.pyfunc.load_model` makes a function of a bundle, and what goes in and comes out.

    loader        name of the module whose `_load_pyfunc(folder, settings)` gives an object with `predict(table)`
    inputs        columns of the table that goes in; `outputs` of the one that comes out
    example       rows that could go in
    settings      what `load_model(…, model_config=…)` may change, with what holds otherwise
    requirements  what pip must install where the bundle is loaded
    """

    loader: str
    inputs: pa.Schema
    outputs: pa.Schema
    example: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    requirements: tuple[str, ...]


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
    from avs_core.tracking.mlflow_registry import fetch  # here, because importing MLflow takes seconds

    with _explained(uri):
        folder, version = fetch(
            asked["name"], asked["alias"], asked["version"] or "", Path(default_store), tracking_uri, cache
        )
    return ResolvedModel(folder, asked["name"], version)


def register_bundle(
    folder: str | Path,
    function: PythonFunction,
    name: str,
    alias: str,
    tracking_uri: str | None = None,
    default_store: str | Path = DEFAULT_STORE,
) -> str:
    """Log a bundle as a model of a run, make a version of model `name` of it and let the alias point there.

    Returns the version. The store is found as by `start_run`. Raises `InputError` for a name that `models:/name@alias`
    could not hold, `BundleError` for what the registry refuses and for a folder that is none, and `StorageError`
    when it can't be reached.
    """
    folder, uri = Path(folder), f"{SCHEME}{name}@{alias}"
    if not folder.is_dir():
        raise BundleError(f"a bundle must be a folder, got {folder}")
    if not _REFERENCE.fullmatch(uri):
        raise InputError(f"a registered model must be named models:/name@alias, got {uri}")
    teach_mlflow()
    from avs_core.tracking.mlflow_registry import register

    with _explained(uri):
        return register(folder, function, name, alias, Path(default_store), tracking_uri)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except NotApplied as refusal:
        raise BundleError(f"the model registry cannot serve {uri}: {refusal}") from refusal
