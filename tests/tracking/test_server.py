"""A real tracking server: a whole run on it, and what happens when it is killed in the middle."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from avs_core.tracking import PythonFunction, Tracker, fetch_model, register_bundle, start_run
from avs_core.tracking.outbox import Patience

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

START_S = 180


class Server:
    """A tracking server in a process group of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        self._log = folder / "log.txt"
        options = {
            "--host": "127.0.0.1",
            "--port": str(port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination": f"{folder}/artifacts",
        }
        command = [sys.executable, "-m", "mlflow", "server", *(word for pair in options.items() for word in pair)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
            except OSError:
                assert time.monotonic() < deadline, self._log.read_text()[-3000:]
                assert self._process.poll() is None, self._log.read_text()[-3000:]
                time.sleep(0.3)
            else:
                return

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path, port: int) -> Iterator[Server]:
    server = Server(tmp_path, port)
    try:
        server.wait()
        yield server
    finally:
        server.kill()


def until_made(run: Tracker) -> None:
    deadline = time.monotonic() + 60
    while run.run_id is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_run_and_a_model_go_through_a_server(
    server: Server, function: PythonFunction, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    run = start_run("served", "one", tmp_path / "unused", server.uri)
    run.log_params({"rate": 1})
    run.log_text("hello", "notes/a.txt")
    run.log_table([{"class": "nan"}], "dead.json")
    run.finish("FINISHED")
    assert run.dropped == 0
    assert not warnings(caplog)
    assert run.run_url == f"{server.uri}/#/experiments/1/runs/{run.run_id}"
    client = MlflowClient(server.uri)
    assert client.get_run(str(run.run_id)).info.status == "FINISHED"
    assert [found.path for found in client.list_artifacts(str(run.run_id))] == ["dead.json", "notes"]
    assert not (tmp_path / "unused").exists()

    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "model.safetensors").write_bytes(b"weights")
    register_bundle(bundle, function, "tpavi", "best", server.uri)
    fetched = fetch_model("models:/tpavi@best", server.uri, cache=tmp_path / "cache")
    assert (fetched.folder / "model.safetensors").read_bytes() == b"weights"


def test_a_job_outlives_its_server(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = start_run("served", "killed", tmp_path / "unused", server.uri)
    run.log_metrics({"units": 0}, 0)
    until_made(run)
    server.kill()
    started = time.monotonic()
    for step in range(1, 200):
        run.log_metrics({"units": step}, step)
        time.sleep(0.005)
    assert time.monotonic() - started < 5
    run.log_text("late", "late.txt")
    started = time.monotonic()
    run.finish("FINISHED")
    assert time.monotonic() - started < 15
    away, lost = warnings(caplog)
    assert "goes on" in away
    assert f"{run.dropped} entries" in lost
    assert run.dropped >= 200


def test_what_a_server_missed_arrives_when_it_is_back(
    server: Server, port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    run = start_run("served", "restarted", tmp_path / "unused", server.uri, Patience(pause_s=0.5))
    run.log_metrics({"units": 0}, 0)
    until_made(run)
    server.kill()
    for step in range(1, 50):
        run.log_metrics({"units": step}, step)
    deadline = time.monotonic() + 30
    while not warnings(caplog) and time.monotonic() < deadline:
        time.sleep(0.05)
    again = Server(tmp_path, port)
    try:
        again.wait()
        run.finish("FINISHED")
        assert run.dropped == 0
        assert len(warnings(caplog)) == 1
        history = MlflowClient(again.uri).get_metric_history(str(run.run_id), "units")
        assert [point.step for point in history] == list(range(50))
    finally:
        again.kill()
