"""What is heard of what is seen, weighed against what else could be heard."""

import math

import pytest
import torch
from pydantic import ValidationError

from avs_core.models.correlation import APART, Proposals, Weighing, correlate, evidence

WEIGHING = Weighing(own=0.7, rival=0.5, shift=0.9)


def scene(overlapping: bool = False) -> tuple[Proposals, torch.Tensor]:
    """Three queries: a dog on the left, a cat on the right, and something faint; or two that look at one thing."""
    p = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.05, 0.05, 0.9]])
    masks = torch.full((3, 4, 8), -9.0)
    masks[0, :, :4] = masks[2, 0, 3:5] = 9.0
    masks[1, :, (0 if overlapping else 4) : (4 if overlapping else 8)] = 9.0
    heard = torch.tensor([[[2.0, -1.0]]])
    return Proposals(p.log()[None, None], masks[None, None]), heard


def by_hand(found: Proposals, heard: torch.Tensor, i: int) -> tuple[float, float]:
    """log a_i and min(log(a_i / a_j), log 2), one number after the other."""
    p, scores = found.probabilities[0, 0].tolist(), torch.sigmoid(heard)[0, 0].tolist()
    masks = [mask > 0 for mask in found.masks[0, 0]]
    own = [sum(a * b for a, b in zip(row, scores, strict=True)) / sum(row) for row in p]
    best = 1e-5
    for j, row in enumerate(p):
        both, either = int((masks[i] & masks[j]).sum()), int((masks[i] | masks[j]).sum())
        if both / either < APART:
            best = max(best, sum(row) * own[j])
    return math.log(own[i]), min(math.log(own[i] / best), math.log(2))


@pytest.mark.parametrize("overlapping", [False, True])
def test_evidence_is_the_printed_formula(overlapping: bool) -> None:
    found, heard = scene(overlapping)
    told = evidence(found.probabilities, found.masks > 0, torch.sigmoid(heard))
    for i in range(3):
        assert told[0, 0, i].tolist() == pytest.approx(by_hand(found, heard, i), abs=1e-5)


def test_the_sounding_score_is_the_weight_of_what_is_something() -> None:
    found, heard = scene()
    _, sounding = correlate(found, heard, "instances", WEIGHING)
    own, rival = by_hand(found, heard, 0)
    weight = 1 / (1 + math.exp(-(0.7 * own + 0.5 * rival + 0.9)))
    assert float(sounding[0, 0, 0]) == pytest.approx(0.9 * weight, abs=1e-5)


def test_what_shows_nothing_is_nobodys_rival() -> None:
    found, heard = scene()
    empty = found.masks.clone()
    empty[:, :, 0] = -9.0  # the one that is heard best
    told = evidence(found.probabilities, empty > 0, torch.sigmoid(heard))
    alone = evidence(found.probabilities[:, :, 1:], found.masks[:, :, 1:] > 0, torch.sigmoid(heard))
    torch.testing.assert_close(told[:, :, 1:], alone)


def test_a_better_explanation_at_hand_makes_an_object_less_likely() -> None:
    found, heard = scene()
    alone = Proposals(found.classes[:, :, 1:], found.masks[:, :, 1:])
    strict = Weighing(own=0.7, rival=1.5, shift=0.9)
    beside = correlate(found, heard, "instances", strict)[1][0, 0, 1]
    without = correlate(alone, heard, "instances", strict)[1][0, 0, 0]
    assert float(beside) < 0.6 * float(without)


def test_what_stands_alone_is_not_lit_in_silence() -> None:
    found, _ = scene()
    alone = Proposals(found.classes[:, :, :1], found.masks[:, :, :1])
    _, sounding = correlate(alone, torch.full((1, 1, 2), -8.0), "instances", Weighing(own=0.5, rival=1.2, shift=0.5))
    assert float(sounding) < 0.1


def test_a_second_look_at_the_same_thing_is_no_rival() -> None:
    apart, heard = scene()
    same, _ = scene(overlapping=True)
    of_cat = [correlate(found, heard, "instances", WEIGHING)[1][0, 0, 1] for found in (apart, same)]
    assert float(of_cat[1]) > float(of_cat[0])


def test_an_empty_picture_gives_finite_scores() -> None:
    found = Proposals(torch.tensor([[[[-50.0, -50.0, 50.0]] * 2]]), torch.full((1, 1, 2, 4, 4), -99.0))
    lit, sounding = correlate(found, torch.zeros(1, 1, 2), "instances", WEIGHING)
    assert bool(torch.isfinite(lit).all())
    assert float(sounding.max()) < 1e-6


def test_what_lights_all_is_not_weighed() -> None:
    found, heard = scene()
    plain, weighed = (correlate(found, heard, "all", weighing) for weighing in (None, WEIGHING))
    assert torch.equal(plain[0], weighed[0])


def test_hearing_something_must_not_count_against_it() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Weighing(own=-0.1, rival=0.0, shift=0.0)
