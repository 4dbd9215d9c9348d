"""The ablations' script: trains, measures, goes on where it stopped, and says it in a table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from avs_core.datasets.composed import ComposedSet
from avs_core.datasets.sources import Sources
from avs_core.errors import ConfigError
from avs_core.pipelines.segment_config import DEFAULT_MODEL
from benchmarks.ablations import COLUMNS, FIGURES, HEADLINE, Remembered, Terms, collect, markdown, run, spread, table

TERMS = Terms(steps=2, size=64, audio="tpavi-light", val_clips=1, test_clips=2)
NAME = "composites-light-stage-3"


@pytest.fixture
def data(tiny_sources: Sources) -> Remembered:
    return Remembered(ComposedSet(tiny_sources, {"train": 4, "val": 1, "test": 2}, seconds=2))


def test_a_run_leaves_its_figures_and_is_not_made_twice(data: Remembered, tmp_path: Path) -> None:
    run(NAME, 1, data, TERMS, tmp_path)
    path = tmp_path / NAME / "seed-1" / FIGURES
    figures = json.loads(path.read_text())
    assert 0 <= figures["miou_at"] <= 1
    assert 0 < figures["threshold"] < 1
    made = path.stat().st_mtime_ns
    run(NAME, 1, data, TERMS, tmp_path)
    assert path.stat().st_mtime_ns == made
    found = collect(["composites-light", NAME], range(3), tmp_path)
    assert found == {NAME: {1: figures}}
    rows = table(found)
    assert rows.row_count == 1
    assert list(rows.columns[0].cells) == [NAME]
    assert list(rows.columns[2 + list(COLUMNS).index("all frames")].cells) == [f"{figures['miou_at']:.3f}"]
    lines = markdown(found).splitlines()
    assert lines[0] == f"| | {NAME} |"
    assert f"| all frames | {figures['miou_at']:.3f} |" in lines


def test_an_instance_aware_run_tells_which_objects_it_finds(data: Remembered, tmp_path: Path) -> None:
    run("instances-light", 0, data, TERMS, tmp_path)
    figures = collect(["instances-light"], [0], tmp_path)["instances-light"][0]
    assert {"miou_sounding_at", "instances.ap50", "instances.named"} <= set(figures)


def test_the_two_stage_baseline_stands_beside_them(data: Remembered, tmp_path: Path) -> None:
    run("two-stage-light", 0, data, TERMS, tmp_path)
    figures = collect(["two-stage-light"], [0], tmp_path)["two-stage-light"][0]
    assert 0 <= figures["miou_sounding_at"] <= 1
    assert "instances.ap50" not in figures, "it tells no objects apart"


@pytest.mark.slow
def test_the_headline_is_one_command(data: Remembered, tmp_path: Path) -> None:
    for name in HEADLINE:
        run(name, 0, data, replace(TERMS, steps=1, teacher=DEFAULT_MODEL), tmp_path)
    found = collect(HEADLINE, [0], tmp_path)
    assert list(found) == list(HEADLINE)
    seeing = [name for name in HEADLINE if name.startswith("instances-light")]
    assert len(seeing) == 8
    assert all({"instances.ap", "instances.ap50", "instances.named"} <= set(found[name][0]) for name in seeing)


def test_clips_are_read_once(data: Remembered) -> None:
    ref = data.clips("test")[0]
    assert data.load(ref, 64, "aligned") is data.load(ref, 64, "aligned")
    assert data.load(ref, 64, "aligned").frames.shape != data.load(ref, 32, "aligned").frames.shape


def test_other_recipes_are_refused(data: Remembered, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="s4-r50 is not one of our recipes"):
        run("s4-r50", 0, data, TERMS, tmp_path)


def test_a_figure_is_a_mean_with_its_deviation_and_a_dash_without_values() -> None:
    assert [spread([]), spread([0.5]), spread([0.25, 0.75])] == ["–", "0.500", "0.500 ± 0.354"]
    assert len(set(COLUMNS.values())) == len(COLUMNS)
