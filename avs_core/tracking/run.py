"""What a job tells about itself, and to whom."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from avs_core.errors import ConfigError
from avs_core.tracking.manners import teach_mlflow
from avs_core.tracking.outbox import DiskFile, Ended, Entry, Metrics, Outbox, Params, Patience, Tags, TextFile
from avs_core.tracking.redaction import redact

Status = Literal["FINISHED", "FAILED", "KILLED"]

LONGEST_VALUE = 500
"""Characters of a parameter, the limit of older servers; longer ones end in an ellipsis."""

LONGEST_KEY = 250
LONGEST_TAG = 5000

_NOT_IN_KEYS = re.compile(r"[^\w\-. /:]", re.ASCII)


@runtime_checkable
class Store(Protocol):
    """Where a run is kept: what `mlflow_store` implements."""

    @property
    def where(self) -> str:
        """The server, for messages."""

    @property
    def run_id(self) -> str | None:
        """None until the run is made."""

    @property
    def run_url(self) -> str | None:
        """None until the run is made."""

    def send(self, entries: Sequence[Entry]) -> None:
        """As `outbox.Send`."""


@runtime_checkable
class Tracker(Protocol):
    """A run of a job, as a tracking server shows it. No call waits for the server, and none fails because of it."""

    @property
    def run_id(self) -> str | None:
        """The server's name of the run; None while it has none."""

    @property
    def run_url(self) -> str | None:
        """Where to look at the run; None while it is nowhere."""

    @property
    def dropped(self) -> int:
        """How many calls did not reach the server and never will."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """What the job was told to do; nested names are joined with dots."""

    def log_metrics(self, metrics: Mapping[str, int | float], step: int) -> None:
        """Numbers while it runs."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """What is good to know about it."""

    def log_text(self, text: str, name: str) -> None:
        """A text file among its artefacts; `name` may hold folders."""

    def log_file(self, path: str | Path, name: str) -> None:
        """A file among its artefacts, as it is when it is sent: it must stay until `finish`."""

    def log_table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Rows that the server's pages show as a table; `name` ends in .json."""

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run and send what is left, for some seconds at most. Later calls are counted and lost."""


class NullRun:
    """A run that goes nowhere."""

    run_id: str | None = None
    run_url: str | None = None
    dropped: int = 0

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Nothing."""

    def log_metrics(self, metrics: Mapping[str, int | float], step: int) -> None:
        """Nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Nothing."""

    def log_text(self, text: str, name: str) -> None:
        """Nothing."""

    def log_file(self, path: str | Path, name: str) -> None:
        """Nothing."""

    def log_table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Nothing."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Nothing."""


@contextmanager
def finishing(tracker: Tracker) -> Iterator[Tracker]:
    """The tracker's run ends as the block ends: finished, failed, or killed by an interrupt."""
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.finish("KILLED")
        raise
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")


def start_run(
    experiment: str,
    run_name: str,
    default_store: str | Path,
    tracking_uri: str | None = None,
    patience: Patience | None = None,
) -> Tracker:
    """Start a run at `tracking_uri`, else at MLFLOW_TRACKING_URI, else in SQLite in the folder `default_store`.

    Returns before the server has answered, and whether or not it ever will. Secrets are redacted from everything
    but the content of files.
    """
    teach_mlflow()
    from avs_core.tracking.mlflow_store import MlflowStore  # here, because importing MLflow takes seconds

    return MlflowRun(MlflowStore(experiment, run_name, Path(default_store), tracking_uri), patience)


class MlflowRun:
    """A run on an MLflow server or in a local store."""

    def __init__(self, store: Store, patience: Patience | None = None) -> None:
        self._store = store
        self._outbox = Outbox(store.send, store.where, patience)
        self._finished = False

    @property
    def run_id(self) -> str | None:
        """None until the server has made the run."""
        return self._store.run_id

    @property
    def run_url(self) -> str | None:
        """A link; of a local store the command that serves it, and the link it then has."""
        return self._store.run_url

    @property
    def dropped(self) -> int:
        """How many calls did not reach the server and never will."""
        return self._outbox.dropped

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Nested mappings become dotted names, other values text of at most `LONGEST_VALUE` characters."""
        flat = {_key(name): _clipped(value, LONGEST_VALUE) for name, value in flatten(redact(params)).items()}
        if flat:
            self._outbox.put(Params(flat))

    def log_metrics(self, metrics: Mapping[str, int | float], step: int) -> None:
        """Stamped with the time of the call, however late it is sent."""
        if metrics:
            values = {_key(name): float(value) for name, value in metrics.items()}
            self._outbox.put(Metrics(values, _now_ms(), step))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags of the run; a later value replaces an earlier one."""
        if tags:
            values = {_key(name): _clipped(value, LONGEST_TAG) for name, value in redact(tags).items()}
            self._outbox.put(Tags(values))

    def log_text(self, text: str, name: str) -> None:
        """Raises `ConfigError` for a name that leads out of the run."""
        self._outbox.put(TextFile(redact(text), _artefact(name)))

    def log_file(self, path: str | Path, name: str) -> None:
        """Raises `ConfigError` for a name that leads out of the run."""
        self._outbox.put(DiskFile(Path(path), _artefact(name)))

    def log_table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Raises `ConfigError` for a name that does not end in .json, or leads out of the run."""
        if not name.endswith(".json"):
            raise ConfigError(f"the name of a table must end in .json, got {name!r}")
        columns = list(dict.fromkeys(column for row in rows for column in row))
        data = [[redact({column: row.get(column)})[column] for column in columns] for row in rows]
        table = json.dumps({"columns": columns, "data": data}, ensure_ascii=False, default=str)
        self._outbox.put(TextFile(table, _artefact(name), is_table=True))

    def finish(self, status: Status = "FINISHED") -> None:
        """A second call does nothing."""
        if not self._finished:
            self._finished = True
            self._outbox.put(Ended(status, _now_ms()))
            self._outbox.close()


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        path = f"{prefix}{name}"
        flat.update(flatten(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value})
    return flat


def _key(name: str) -> str:
    """A name that MLflow takes."""
    return _NOT_IN_KEYS.sub("_", name)[:LONGEST_KEY]


def _clipped(value: Any, longest: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _artefact(name: str) -> str:
    if not name or {"", ".", ".."} & set(name.split("/")) or "\\" in name or "\0" in name:
        raise ConfigError(f"an artefact's name must be relative and without . or .., got {name!r}")
    return name


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
