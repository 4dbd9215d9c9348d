"""The clusters of the launcher: valid by Ray's own schema, and the local one grows when a job waits."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from avs_core.archive.verify import archive_digest, verify
from tests import ray_head
from tests.infra.command_lines import commented, parsed

LAUNCHED = ("ray_cluster.yaml", "infra/local_cluster.yaml")


@pytest.mark.parametrize("path", LAUNCHED)
def test_a_cluster_is_valid_by_the_schema_of_ray(documents: dict[str, Any], path: str) -> None:
    config = copy.deepcopy(documents[path])
    if config["provider"]["type"] == "aws":  # `ray up` fills in its defaults before it looks
        config = prepare_config(config)
    validate_config(config)
    with pytest.raises(jsonschema.ValidationError, match=r"max_worker"):
        validate_config({**config, "max_worker": 3})


def test_the_launcher_fills_in_the_rest_without_a_network(documents: dict[str, Any]) -> None:
    config = prepare_config(copy.deepcopy(documents["ray_cluster.yaml"]))
    types = config["available_node_types"]
    assert set(types) == {"head", "decode", "gpu"}
    assert types["head"]["max_workers"] == types["head"]["resources"]["CPU"] == 0
    assert sum(types[name]["max_workers"] for name in ("decode", "gpu")) <= config["max_workers"]
    assert types["gpu"]["resources"]["GPU"] == 1
    for name in ("decode", "gpu"):
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert config["setup_commands"] == documents["ray_cluster.yaml"]["setup_commands"]


def test_nodes_get_roles_that_have_policies_and_no_credentials(documents: dict[str, Any], root: Path) -> None:
    types = documents["ray_cluster.yaml"]["available_node_types"]
    assert {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in types.values()} == {"avs-head", "avs-worker"}
    assert "role/avs-worker" in (root / "infra/iam/head.json").read_text()
    assert not re.search(r"AKIA|aws_secret|AWS_SECRET", (root / "ray_cluster.yaml").read_text())


def test_every_node_shows_the_token_and_serves_its_metrics(documents: dict[str, Any]) -> None:
    config = documents["ray_cluster.yaml"]
    assert any(path.endswith(".ray/auth_token") for path in config["file_mounts"])
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
        assert "--metrics-export-port=8090" in commands[-1]


def test_nodes_are_set_up_from_the_pins(documents: dict[str, Any], root: Path) -> None:
    commands = "\n".join(documents["ray_cluster.yaml"]["setup_commands"])
    made = (root / "Makefile").read_text()
    assert re.findall(r"/uv/([\d.]+)/", commands) == re.findall(r"uv==([\d.]+)", made)
    assert "--constraint constraints.txt" in commands


def test_no_node_gets_the_image_that_is_too_old_for_torch(documents: dict[str, Any]) -> None:
    types = documents["ray_cluster.yaml"]["available_node_types"]
    images = {kind["node_config"]["ImageId"] for kind in types.values()}
    assert len(images) == 1
    assert not images & {"", "latest_dlami"}, "Ray's default is Ubuntu 18.04; torch asks for glibc 2.28"


def test_a_node_of_the_local_cluster_has_what_a_worker_of_any_stage_asks_for(
    documents: dict[str, Any], root: Path
) -> None:
    has = documents["infra/local_cluster.yaml"]["available_node_types"]["decode"]["resources"]
    (line,) = commented(root / "infra/local_cluster.yaml")
    asks = parsed(line)["config"].pool_config().resources
    for stage in (asks.decode, asks.segment, asks.commit):
        assert stage.cpus <= has["CPU"]
        assert not stage.memory_mb
    assert "memory" not in has


@pytest.fixture
def growing(tmp_path_factory: pytest.TempPathFactory, documents: dict[str, Any]) -> Iterator[ray_head.RayHead]:
    """infra/local_cluster.yaml, on a port that is free."""
    folder, port = tmp_path_factory.mktemp("g"), ray_head.free_ports(1)[0]
    config = copy.deepcopy(documents["infra/local_cluster.yaml"])
    config["provider"]["gcs_address"] = f"{ray.util.get_node_ip_address()}:{port}"
    (folder / "cluster.yaml").write_text(yaml.safe_dump(config))
    scaling = f"--autoscaling-config={folder / 'cluster.yaml'}"
    with ray_head.running(folder, port, "--num-cpus=1", scaling) as head:
        yield head


def run(head: ray_head.RayHead | None, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.main", *arguments, "--json"],
        env=head.environment if head else None,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def nodes(head: ray_head.RayHead) -> int:
    return len({check["where"] for check in run(head, "doctor")["checks"] if check["name"] == "clock"})


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_the_local_cluster_starts_grows_for_a_job_and_writes_the_same_archive(
    growing: ray_head.RayHead, demo_clips: list[Path], tmp_path: Path, root: Path
) -> None:
    assert nodes(growing) == 1
    clips = list(map(str, demo_clips))
    quiet = ("--no-tracking", "--no-report")
    (line,) = commented(root / "infra/local_cluster.yaml")  # as people are told
    flags = line[line.index("--grow") :]
    result = run(growing, "segment", *clips, "--archive", str(tmp_path / "grown"), *flags, *quiet)
    assert (result["segmented"], result["failed"]) == (len(clips), 0)
    assert nodes(growing) >= 2
    run(None, "segment", *clips, "--archive", str(tmp_path / "alone"), *quiet)
    assert not verify(str(tmp_path / "grown")).problems
    assert archive_digest(str(tmp_path / "grown")) == archive_digest(str(tmp_path / "alone"))
