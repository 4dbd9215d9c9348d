"""A run in a real local store, and one whose server is not there."""

import json
import logging
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avs_core.errors import ConfigError
from avs_core.tracking import NullRun, Tracker, start_run
from avs_core.tracking.outbox import Patience
from avs_core.tracking.run import LONGEST_VALUE, flatten

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture
def logged(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Tracker, Path]:
    """A finished run, and its artefacts."""
    page = tmp_path / "page.html"
    page.write_text("<p>page</p>")
    run = start_run("avs-test", "segment sample", store)
    run.set_tags({"git_commit": "abc"})
    run.log_params({"segment": {"rate": 2, "mask_size": None, "secret": SECRET}, "inputs": ["x" * 600], "odd$": 1})
    for step in range(120):
        run.log_metrics({"units": step, "stage.decode_s": step / 2}, step)
    run.log_text(f"token={SECRET}\n", "notes/log.txt")
    run.log_file(page, "report.html")
    run.log_table([{"class": "timeout", "file": "a.mp4"}, {"class": "nan", "attempts": 2}], "dead.json")
    run.finish("FINISHED")
    assert run.dropped == 0
    return run, store / "artifacts" / str(run.run_id) / "artifacts"


def test_everything_is_in_the_local_store(logged: tuple[Tracker, Path], store: Path) -> None:
    from mlflow import MlflowClient

    run, artefacts = logged
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    data = client.get_run(str(run.run_id))
    assert (data.info.status, data.info.run_name) == ("FINISHED", "segment sample")
    assert data.data.params == {
        "segment.rate": "2",
        "segment.mask_size": "null",
        "segment.secret": "[redacted]",
        "inputs": json.dumps(["x" * 600])[: LONGEST_VALUE - 1] + "…",
        "odd_": "1",
    }
    assert data.data.tags["git_commit"] == "abc"
    assert data.data.metrics == {"units": 119.0, "stage.decode_s": 59.5}
    history = client.get_metric_history(str(run.run_id), "units")
    assert [(point.step, point.value) for point in history] == [(step, float(step)) for step in range(120)]
    assert (artefacts / "report.html").read_text() == "<p>page</p>"
    assert (artefacts / "notes/log.txt").read_text() == "token=[redacted]\n"
    table = json.loads((artefacts / "dead.json").read_text())
    assert table == {"columns": ["class", "file", "attempts"], "data": [["timeout", "a.mp4", None], ["nan", None, 2]]}
    assert run.run_url is not None
    assert str(run.run_id) in run.run_url
    assert SECRET.encode() not in (store / "mlflow.db").read_bytes()


def test_a_second_run_joins_its_experiment_and_may_fail(store: Path) -> None:
    from mlflow import MlflowClient

    for _ in range(2):
        run = start_run("avs-other", "again", store)
        run.finish("FAILED")
        run.finish("FINISHED")
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("avs-other")
    assert experiment is not None
    assert [found.info.status for found in client.search_runs([experiment.experiment_id])] == ["FAILED"] * 2


def test_a_server_that_is_not_there_costs_one_warning_and_no_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        uri = f"http://me:{SECRET}@127.0.0.1:{taken.getsockname()[1]}"
        run = start_run("avs-test", "nobody", tmp_path, uri)
        started = time.monotonic()
        for step in range(1000):
            run.log_metrics({"units": step}, step)
        assert time.monotonic() - started < 1
        deadline = time.monotonic() + 20
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.05)
        started = time.monotonic()
        run.finish("FINISHED")
        assert time.monotonic() - started < 8
    assert (run.run_id, run.run_url, run.dropped) == (None, None, 1001)
    away, lost = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "goes on" in away
    assert lost.startswith("1001 entries")
    assert SECRET not in caplog.text


def test_a_server_that_hangs_does_not_hang_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run = start_run("avs-test", "silence", tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        run.finish("KILLED")
        assert time.monotonic() - started < 10
    assert run.dropped == 1


def test_the_tracking_uri_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere/my.db")
    run = start_run("avs-test", "environment", tmp_path / "runs", patience=Patience(close_s=120))
    run.finish()
    assert run.dropped == 0
    assert (tmp_path / "elsewhere/my.db").is_file()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up.txt", "a/../../b", "a//b", "a\\b", "a\0"])
def test_an_artefact_stays_inside_its_run(name: str, store: Path) -> None:
    run = start_run("avs-test", "names", store)
    for log in (lambda: run.log_text("", name), lambda: run.log_file("x", name)):
        with pytest.raises(ConfigError, match="relative"):
            log()
    run.finish()


@pytest.mark.integration
def test_mlflow_is_imported_by_a_run_alone_and_prints_nothing(tmp_path: Path) -> None:
    script = """
import sys
from avs_core.tracking import NullRun, start_run
assert "mlflow" not in sys.modules, "importing avs_core.tracking must be quick"
run = start_run("quiet", "quiet", sys.argv[1])
run.log_metrics({"a": 1}, 0)
run.finish()
assert run.dropped == 0
"""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script, str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_null_run_takes_everything() -> None:
    run: Tracker = NullRun()
    run.log_params({"a": 1})
    run.log_metrics({"a": 1}, 0)
    run.set_tags({"a": "b"})
    run.log_text("a", "b")
    run.log_file("a", "b")
    run.log_table([{}], "b.json")
    run.finish()
    assert (run.run_id, run.run_url, run.dropped) == (None, None, 0)


NAMES = st.text("abc", min_size=1, max_size=3)
LEAVES = st.integers() | st.text(max_size=3)


@given(st.dictionaries(NAMES, LEAVES | st.dictionaries(NAMES, LEAVES | st.dictionaries(NAMES, LEAVES, min_size=1))))
@settings(max_examples=30)
def test_a_flat_name_leads_to_its_value(params: dict[str, object]) -> None:
    for name, value in flatten(params).items():
        found: object = params
        for part in name.split("."):
            assert isinstance(found, dict)
            found = found[part]
        assert found == value
