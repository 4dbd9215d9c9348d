"""The calls of MLflow, imported when a run starts. Its faults become ours: away, or refused."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from avs_core.errors import NotApplied, OutcomeUnknown, StorageError
from avs_core.tracking.outbox import DiskFile, Ended, Entry, Metrics, Params, Tags, TextFile
from avs_core.tracking.redaction import redact

DATABASE, ARTEFACTS = "mlflow.db", "artifacts"
MOST_PARAMS, MOST_METRICS = 100, 1000
"""That MLflow takes in one request."""

TABLES_TAG = "mlflow.loggedArtifacts"
"""Which artefacts MLflow's pages show as tables."""


class MlflowStore:
    """One run on a tracking server or in a local database, made when the first entry is sent."""

    def __init__(self, experiment: str, run_name: str, default_store: Path, tracking_uri: str | None) -> None:
        """Contacts nobody. The places are as for `start_run`."""
        self._uri = tracking_address(default_store, tracking_uri)
        self._artefacts = artefact_location(self._uri, default_store)
        self._experiment, self._run_name = experiment, run_name
        self._start_ms = time.time_ns() // 1_000_000
        self._client: MlflowClient | None = None
        self._refusal: NotApplied | None = None
        self._tables: list[str] = []
        self._experiment_id: str | None = None
        self._run_id: str | None = None

    @property
    def where(self) -> str:
        """The server, for messages."""
        return str(redact(self._uri))

    @property
    def run_id(self) -> str | None:
        """None until the first entry is sent."""
        return self._run_id

    @property
    def run_url(self) -> str | None:
        """A link, or the command that serves a local store and the link it then has; None before there is a run."""
        if self._run_id is None:
            return None
        page = f"#/experiments/{self._experiment_id}/runs/{self._run_id}"
        if self._uri.startswith(("http://", "https://")):
            return f"{self.where.rstrip('/')}/{page}"
        return f"http://127.0.0.1:5000/{page} after: mlflow ui --backend-store-uri {self.where}"

    def send(self, entries: Sequence[Entry]) -> None:
        """Some metrics, or one other entry. Raises `OutcomeUnknown` (server away) or `NotApplied` (it refuses)."""
        with translated():
            client, run_id = self._run()
            if isinstance(entries[0], Metrics):
                self._send_metrics(client, run_id, [entry for entry in entries if isinstance(entry, Metrics)])
            for entry in entries:
                self._send_one(client, run_id, entry)

    def _run(self) -> tuple[MlflowClient, str]:
        """The client and the run, made when there is none. What the server refused once is not asked again."""
        if self._refusal is not None:
            raise self._refusal
        try:
            with translated():
                self._client = self._client or connect(self._uri)
                self._experiment_id = self._experiment_id or ensure_experiment(
                    self._client, self._experiment, self._artefacts
                )
                self._run_id = self._run_id or self._create_run(self._client, self._experiment_id)
        except NotApplied as refusal:
            self._refusal = refusal
            raise
        return self._client, self._run_id

    def _create_run(self, client: MlflowClient, experiment_id: str) -> str:
        run = client.create_run(experiment_id, start_time=self._start_ms, run_name=self._run_name)
        return str(run.info.run_id)

    def _send_metrics(self, client: MlflowClient, run_id: str, entries: Sequence[Metrics]) -> None:
        points = [
            Metric(name, value, entry.time_ms, entry.step) for entry in entries for name, value in entry.values.items()
        ]
        for start in range(0, len(points), MOST_METRICS):
            client.log_batch(run_id, metrics=points[start : start + MOST_METRICS])

    def _send_one(self, client: MlflowClient, run_id: str, entry: Entry) -> None:
        if isinstance(entry, Params):
            params = [Param(name, value) for name, value in entry.values.items()]
            for start in range(0, len(params), MOST_PARAMS):
                client.log_batch(run_id, params=params[start : start + MOST_PARAMS])
        elif isinstance(entry, Tags):
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in entry.values.items()])
        elif isinstance(entry, TextFile):
            client.log_text(run_id, entry.text, entry.name)
            self._show_table(client, run_id, entry)
        elif isinstance(entry, DiskFile):
            log_file(client, run_id, entry.path, entry.name)
        elif isinstance(entry, Ended):
            client.set_terminated(run_id, entry.status, entry.time_ms)

    def _show_table(self, client: MlflowClient, run_id: str, entry: TextFile) -> None:
        if entry.is_table:
            self._tables = list(dict.fromkeys([*self._tables, entry.name]))
            tables = [{"path": name, "type": "table"} for name in self._tables]
            client.set_tag(run_id, TABLES_TAG, json.dumps(tables))


def tracking_address(default_store: Path, tracking_uri: str | None) -> str:
    """The URI given, else MLFLOW_TRACKING_URI, else SQLite in the folder."""
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{default_store.absolute() / DATABASE}"


def artefact_location(uri: str, default_store: Path) -> str | None:
    """Beside the database, where it is ours; None leaves it to the server."""
    folder = default_store.absolute()
    return (folder / ARTEFACTS).as_uri() if uri == f"sqlite:///{folder / DATABASE}" else None


def connect(uri: str) -> MlflowClient:
    """A client; a local database gets its folder."""
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)


def ensure_experiment(client: MlflowClient, name: str, artefacts: str | None) -> str:
    """The id of the experiment, made when there is none; of two that make it at once, one finds the other's."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artefacts))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    return str(found.experiment_id)


def log_file(client: MlflowClient, run_id: str, path: Path, name: str) -> None:
    """A file under another name: MLflow only knows the file's own, so that a copy bears it."""
    folder, _, base = name.rpartition("/")
    if not path.is_file():
        raise NotApplied(f"an artefact's file must stay until the run is finished; {path} is gone")
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copyfile(path, Path(scratch) / base)
        client.log_artifact(run_id, str(copy), folder or None)


@contextmanager
def translated() -> Iterator[None]:
    """MLflow's faults as `OutcomeUnknown` (no answer, or a fault of the server) or `NotApplied` (refused)."""
    try:
        yield
    except StorageError:
        raise
    except MlflowException as error:
        ask: Callable[[], int] = error.get_http_status_code
        status = ask()
        if 400 <= status < 500 and status not in (408, 429):
            raise NotApplied(str(redact(error.message))) from error
        raise OutcomeUnknown(str(redact(error.message))) from error
    except (OSError, SQLAlchemyError) as error:  # those of HTTP clients are OSErrors
        raise OutcomeUnknown(str(redact(str(error)))) from error
