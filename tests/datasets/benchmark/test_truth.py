"""What is true of a clip, on masks drawn by hand."""

import numpy as np
import pytest

from avs_core.datasets.benchmark.plan import ClipSpec
from avs_core.datasets.benchmark.truth import ClipTruth, measure

ALWAYS, NEVER, LATE = [True] * 5, [False] * 5, [False, False, True, True, True]


def _truth(*objects: tuple[str, int, list[bool]], off_screen: bool = False) -> ClipTruth:
    """Objects as (class, pixels wide of 32, when they sound), side by side and the whole height tall."""
    visible, left = np.zeros((len(objects), 5, 32, 32), bool), 0
    for index, (_, wide, _) in enumerate(objects):
        visible[index, :, :, left : left + wide] = True
        left += wide
    return measure(tuple(o[0] for o in objects), visible, np.array([o[2] for o in objects]), off_screen)


def _fits(truth: ClipTruth, setting: str, kind: str) -> bool:
    return truth.fits(ClipSpec("x", setting, "train", kind, 0))


def test_one_source_alone() -> None:
    truth = _truth(("dog", 4, ALWAYS))
    assert truth.subsets() == ("single",)
    assert _fits(truth, "s4", "alone")
    assert not _fits(_truth(("dog", 4, LATE)), "s4", "alone"), "in S4 the source sounds throughout"


@pytest.mark.parametrize(("wide", "kind"), [(4, "distractor"), (8, "distractor"), (3, "companion")])
def test_a_silent_object_at_least_as_large_is_a_distractor(wide: int, kind: str) -> None:
    truth = _truth(("dog", 4, ALWAYS), ("car", wide, NEVER))
    assert [name for name in ("distractor", "companion") if _fits(truth, "s4", name)] == [kind]
    assert truth.larger == (("car",) if kind == "distractor" else ())


def test_the_largest_source_counts() -> None:
    truth = _truth(("dog", 2, LATE), ("cat", 6, ALWAYS), ("car", 4, NEVER))
    assert truth.larger == ()
    assert truth.subsets() == ("multi",)
    assert _fits(truth, "ms3", "chorus")
    assert not _fits(truth, "ms3", "crowd")


def test_a_pair_is_no_distractor() -> None:
    truth = _truth(("dog", 4, ALWAYS), ("dog", 8, NEVER))
    assert truth.subsets() == ("single", "same-class-pair")
    assert truth.larger == ()
    assert _fits(truth, "s4", "pair")


def test_two_of_a_class_that_take_turns_are_a_pair() -> None:
    turns = [not heard for heard in LATE]
    assert "same-class-pair" in _truth(("dog", 4, LATE), ("dog", 4, turns)).subsets()
    assert "same-class-pair" not in _truth(("dog", 4, LATE), ("dog", 4, LATE)).subsets()


def test_a_source_that_is_hidden_fits_nowhere() -> None:
    truth = _truth(("dog", 0, ALWAYS), ("car", 8, NEVER))
    assert truth.hidden
    assert not any(_fits(truth, "s4", kind) for kind in ("alone", "distractor", "companion"))


def test_nothing_sounds_only_if_nothing_off_screen_does() -> None:
    assert _truth(("dog", 4, NEVER)).subsets() == ("silent",)
    truth = _truth(("dog", 4, NEVER), off_screen=True)
    assert truth.subsets() == ("off-screen",)
    assert _fits(truth, "ms3", "off-screen")
    assert not _fits(truth, "s4", "off-screen"), "S4 has a source in the picture"


def test_ms3_sources_start_or_stop() -> None:
    assert not _fits(_truth(("dog", 4, ALWAYS), ("cat", 4, ALWAYS)), "ms3", "chorus")
    assert _fits(_truth(("dog", 4, ALWAYS), ("cat", 4, LATE)), "ms3", "chorus")
