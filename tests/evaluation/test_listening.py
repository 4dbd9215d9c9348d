"""Who only looks fails, who listens passes."""

import numpy as np
import pytest

from avs_core.evaluation.controls import ClipControl, UnderSound
from avs_core.evaluation.examine import evaluate_set
from avs_core.evaluation.listening import Listening, auroc, listening
from tests.evaluation.worlds import EYE, ORACLE, World


@pytest.fixture(scope="module")
def looked() -> Listening:
    found = evaluate_set(EYE, World(), "test").listening
    assert found is not None
    return found


@pytest.fixture(scope="module")
def listened() -> Listening:
    found = evaluate_set(ORACLE, World(), "test").listening
    assert found is not None
    return found


def test_a_saliency_model_gains_nothing_from_the_true_sound(looked: Listening) -> None:
    assert looked.swap is not None
    assert looked.swap.miou > 0.6
    assert looked.swap.delta_foreign == looked.swap.delta_silence == 0
    assert looked.swap.delta_foreign_interval == (0, 0)
    for negative in looked.negatives.values():
        assert negative.auroc == 0.5
        assert negative.loud == 1.0
        assert negative.empty == negative.missed == 0.0
        assert negative.miou == looked.swap.miou


def test_a_saliency_model_cannot_pass_the_pair_switch_even_with_things_of_one_size(looked: Listening) -> None:
    assert looked.pair_switch is not None
    assert looked.pair_switch.frames == 9
    assert looked.pair_switch.passed == 0
    assert looked.pair_switch.worst_iou == pytest.approx(0.5, abs=1e-6)
    assert looked.pair_switch.leak == 1
    assert looked.pair_switch.quiet_area == pytest.approx(2 / 16)


def test_an_oracle_that_hears_passes_everything(listened: Listening) -> None:
    pair, swap = listened.pair_switch, listened.swap
    assert pair is not None
    assert swap is not None
    assert (pair.passed, pair.leak, pair.quiet_area) == (1, 0, 0)
    assert pair.worst_iou == pytest.approx(1, abs=1e-6)
    assert pair.both_iou == pytest.approx(1, abs=1e-6)
    assert swap.delta_foreign == pytest.approx(1, abs=1e-6)
    assert swap.delta_silence == pytest.approx(1, abs=1e-6)
    assert set(listened.negatives) == {"silence", "white", "pink", "absent"}
    for negative in listened.negatives.values():
        assert (negative.empty, negative.missed) == (1.0, 0.0)
        assert (negative.area, negative.loud, negative.auroc, negative.miou) == (0, 0, 1, 0)
        assert negative.g_miou == pytest.approx(1, abs=1e-6)
    assert not listened.unavailable


@pytest.mark.parametrize(
    ("hidden", "missing"),
    [
        (("instances",), {"pair_switch", "absent"}),
        (("instances", "categories"), {"pair_switch", "absent"}),
        (("instances", "waveform"), {"pair_switch", "absent", "white", "pink"}),
    ],
)
def test_what_a_data_set_cannot_tell_is_said_to_be_unavailable(hidden: tuple[str, ...], missing: set[str]) -> None:
    found = evaluate_set(ORACLE, World(hidden=hidden), "test").listening
    assert found is not None
    assert set(found.unavailable) == missing
    assert all(found.unavailable.values())
    assert found.swap is not None
    assert found.swap.delta_foreign > 0.5


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 9, 40) + 1.0, rng.integers(0, 9, 30) * 1.0
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(np.mean(pairs))


def test_a_frame_is_empty_only_if_no_pixel_is_lit_and_silent_frames_do_not_count() -> None:
    true = UnderSound(iou=(0.5, 0.0, 0.0, 0.0), lit=(0.1, 0.2, 0.0, 0.0), peak=(0.9, 0.9, 0.1, 0.1))
    other = UnderSound(iou=(0.0,) * 4, lit=(0.0, 1e-5, 0.0, 0.0), peak=(0.1, 0.3, 0.1, 0.1))
    sounding = (True, True, True, False)
    found = listening([ClipControl(0, "a", sounding, {"true": true, "silence": other}, (), False, False)]).negatives
    assert found["silence"].empty == pytest.approx(2 / 3)
    assert found["silence"].missed == pytest.approx(1 / 3)
    assert found["silence"].loud == 0
