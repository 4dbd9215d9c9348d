"""The dashboard shows every metric there is, and none that is not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from avs_core.pipelines.metrics import ALL


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "infra/grafana/dashboard.json").read_text()))


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_it_shows_exactly_the_metrics_of_the_module(dashboard: dict[str, Any]) -> None:
    shown = {name for text in expressions(dashboard) for name in re.findall(r"[a-z_]*avs_[a-z_]+", text)}
    assert shown == {series.exported for series in ALL}


def test_it_groups_by_labels_that_the_metrics_have(dashboard: dict[str, Any]) -> None:
    labels = {series.exported: set(series.labels) for series in ALL}
    grouped = [found for text in expressions(dashboard) for found in re.findall(r"by \((\w+)\) \(rate\((\w+)", text)]
    grouped += [found for text in expressions(dashboard) for found in re.findall(r"by \((\w+)\) \((ray_\w+)\)", text)]
    assert grouped
    for label, name in grouped:
        assert label in labels[name], name


def test_panels_do_not_lie_on_each_other_and_ask_the_source_that_is_provided(
    dashboard: dict[str, Any], documents: dict[str, Any]
) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    source = documents["infra/grafana/provisioning/datasources/prometheus.yaml"]["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
