"""The figures of an evaluation: which are drawn, and that the grids show what was said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avs_core.evaluation.drawing import draw, precision_recall_figure, reliability_figure
from avs_core.evaluation.examine import evaluate_set
from avs_core.evaluation.grids import ANSWER, TRUTH, clip_grid, telling
from avs_core.evaluation.instances import InstanceFigures
from avs_core.evaluation.predict import bundle_candidate
from avs_core.evaluation.sounds import SoundBank
from tests.evaluation.bundles import tiny_bundle
from tests.evaluation.worlds import ORACLE, SECONDS, World

WORLD = World()
REFS = WORLD.clips("test")


def shown(figure, row: int, colour: tuple[int, int, int]) -> list[bool]:  # type: ignore[no-untyped-def]  # a Figure
    """In which seconds of a row a colour is seen at full strength."""
    axes = np.array(figure.axes).reshape(-1, SECONDS)[row]
    return [bool((np.asarray(axis.images[0].get_array()) == colour).all(-1).any()) for axis in axes]


def test_a_grid_shows_the_answer_to_each_sound() -> None:
    """Red and green are seen and red is heard: the oracle lights the one that each sound names."""
    clip = WORLD.load(REFS[3], 32)
    figure = clip_grid(3, clip, ORACLE, SoundBank(WORLD, REFS, "aligned"))
    titles = [axis.get_ylabel() for axis in figure.axes[::SECONDS]]
    names = ["its own sound", "silence", "white noise", "another clip's sound", "green alone", "red alone"]
    assert titles == ["frame", "truth", *names]
    lit = [all(shown(figure, row, ANSWER)) for row in range(2, len(titles))]
    assert lit == [True, False, False, False, True, True]
    assert all(shown(figure, 1, TRUTH))


def test_each_subset_is_looked_at() -> None:
    places = telling(REFS, 4)
    assert len(places) == 4
    assert {"silent-distractor", "multi", "silent"} <= {name for place in places for name in REFS[place].subsets}
    assert telling(REFS, 99) == list(range(len(REFS)))


def test_all_figures_are_drawn(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    without = tiny_bundle(tmp_path / "without", ())
    report = evaluate_set(bundle_candidate(bundle), WORLD, "test", controls=False)
    files = draw(report, bundle, WORLD, tmp_path / "figures", without=without)
    names = sorted(path.name for path in files)
    clips = [f"{kind}_{i}.png" for kind in ("attention", "clip") for i in range(1, 7)]
    assert names == sorted([*clips, "precision_recall.png", "tsne.png"])
    for path in files:
        assert np.ptp(np.asarray(Image.open(path).convert("L"))) > 100


def test_the_curve_of_a_perfect_answer_passes_through_1_1() -> None:
    report = evaluate_set(ORACLE, WORLD, "test", controls=False)
    assert (1.0, 1.0) in report.curve
    assert precision_recall_figure(report) is not None


def test_the_reliability_figure_has_a_point_for_each_bin_and_needs_objects() -> None:
    report = evaluate_set(ORACLE, WORLD, "test", controls=False)
    assert reliability_figure(replace(report, instances=None)) is None
    bins = ((0.1, 0.05, 10), (0.7, 0.5, 30))
    found = InstanceFigures(40, 20, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.07, bins)
    figure = reliability_figure(replace(report, instances=found))
    assert figure is not None
    (axis,) = figure.axes
    assert np.asarray(axis.collections[0].get_offsets()) == pytest.approx(np.array([[0.1, 0.05], [0.7, 0.5]]))
    assert {text.get_text() for text in axis.texts} == {"10", "30"}
