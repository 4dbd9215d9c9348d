"""Compose and Kubernetes by their own schemas, which two packages carry.

KubeRay's resources have no schema in a package: of RayCluster and RayJob the pods are looked at, and what is around
them is held against our own facts in test_deployments.py.
"""

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

VERSIONS = ("1.27", "1.37")
"""The first Kubernetes in which a CronJob's time zone is no trial, and the newest that the pinned package knows."""

OF_KUBERAY = {"RayCluster", "RayJob"}


def pods(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template in a document, as the pod that would be made of it, by the path of the template."""
    if not isinstance(value, dict | list):
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "template":
            named = {"name": "pod", **inner.get("metadata", {})}  # whoever makes the pod names it
            yield f"{path}.{key}", {"apiVersion": "v1", "kind": "Pod", **inner, "metadata": named}
        yield from pods(inner, f"{path}.{key}")


def resources(documents: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What Kubernetes' own schemas tell of: its own resources as a whole, of KubeRay's the pods."""
    found: dict[str, dict[str, Any]] = {}
    for path, document in documents.items():
        if "kuberay" not in path:
            continue
        if document["kind"] in OF_KUBERAY:
            found.update(pods(document, path))
        else:
            found[path] = document
    return found


def test_every_resource_and_every_pod_is_looked_at(documents: dict[str, Any]) -> None:
    assert sorted(resource["kind"] for resource in resources(documents).values()) == ["CronJob", *["Pod"] * 5]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_what_is_in_the_files(documents: dict[str, Any], version: str) -> None:
    for path, resource in resources(documents).items():
        try:
            judged_by = kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{path}{error.json_path[1:]}: {error.message}") from error
        assert judged_by == version


def test_kubernetes_refuses_a_name_and_a_value_that_are_wrong(documents: dict[str, Any]) -> None:
    for resource in map(copy.deepcopy, resources(documents).values()):
        spec = resource["spec"]
        if resource["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]["template"]["spec"]
        for wrong in ({"restartpolicy": "Never"}, {"containers": [{"image": "no-name"}]}):
            kept = dict(spec)
            spec.update(wrong)
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(resource, VERSIONS[-1], strict=True)
            spec.clear()
            spec.update(kept)


def composed(document: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """What check-jsonschema says of a compose file, by the schema of compose that comes with it."""
    (file := folder / "compose.yaml").write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_compose_is_valid_by_its_schema(documents: dict[str, Any], tmp_path: Path) -> None:
    document = copy.deepcopy(documents["infra/compose.yaml"])
    done = composed(document, tmp_path)
    assert done.returncode == 0, done.stdout
    document["services"]["head"]["port"] = document["services"]["head"].pop("ports")
    refused = composed(document, tmp_path)
    assert refused.returncode == 1
    assert "'port' was unexpected" in refused.stdout
