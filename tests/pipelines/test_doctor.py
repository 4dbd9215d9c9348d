"""`avs doctor` on real raylets: it finds the one node, and the one store, that is not fit."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from avs_core import storage
from avs_core.pipelines.node_facts import look, versions

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MEMORY = 300_000_000
"""Of an object store, bytes: enough for one CPU."""


def doctor(*arguments: str, code: int) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.doctor", *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    checks = list(answer["checks"])
    assert answer["problems"] == sum(check["state"] == "problem" for check in checks)
    assert (answer["problems"] > 0) == (code == 1)
    return checks


def test_this_machine_decodes_and_has_one_set_of_versions(tmp_path: Path) -> None:
    facts = look(str(tmp_path))
    assert facts.decoders == {"pyav": "", "decord": ""}
    assert facts.versions == versions()
    assert 0 < facts.disk_free < facts.disk_total


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two raylets of one CPU each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "num_gpus": 0, "object_store_memory": MEMORY, "include_dashboard": False},
    )
    nodes.add_node(num_cpus=1, num_gpus=0, object_store_memory=MEMORY)
    try:
        yield nodes
    finally:
        nodes.shutdown()


@pytest.mark.ci_slice
def test_a_store_is_tried_from_every_node_and_left_empty(s3_bucket: str, cluster: Cluster) -> None:
    checks = doctor("--address", cluster.address, "--archive", f"{s3_bucket}/archive", code=0)
    for name in ("clock", "decoder pyav", "disk to spill to", "store: conditional writes"):
        assert len({check["where"] for check in checks if check["name"] == name}) == 2, name
    assert not list(storage.list_files(s3_bucket))


def test_nodes_that_were_started_without_credentials_are_found(cluster: Cluster, s3_bucket: str) -> None:
    checks = doctor("--address", cluster.address, "--archive", f"{s3_bucket}/archive", code=1)
    problems = [check for check in checks if check["state"] == "problem"]
    assert [check["name"] for check in problems] == ["store", "store"]
    assert all("AWS_ACCESS_KEY_ID" in check["found"] for check in problems)


def test_a_node_that_promises_a_gpu_it_does_not_have_is_found(cluster: Cluster) -> None:
    liar = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=MEMORY)
    checks = doctor("--address", cluster.address, code=1)
    problems = [check for check in checks if check["state"] == "problem"]
    assert [check["name"] for check in problems] == ["GPUs"]
    assert liar.node_id[-6:] in problems[0]["where"]
    assert "--num-gpus" in problems[0]["advice"]


def test_a_store_that_ignores_conditional_writes_is_found(forgetful_bucket: str) -> None:
    checks = doctor("--archive", f"{forgetful_bucket}/archive", code=1)
    problems = [check for check in checks if check["state"] == "problem"]
    assert [check["name"] for check in problems] == ["store: conditional writes"]
    assert "If-None-Match" in problems[0]["advice"]


def test_a_store_that_is_away_is_a_finding(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    checks = doctor("--archive", f"{s3_bucket}/archive", code=1)
    problems = [check for check in checks if check["state"] == "problem"]
    assert [check["name"] for check in problems] == ["store"]
    assert "reached" in problems[0]["found"]
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in json.dumps(checks)
