"""Set prediction and the silent object-aware objective against their printed formulas."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avs_core.errors import ConfigError
from avs_core.query_losses import (
    COVERING,
    NAMING,
    OVERLAPPING,
    UNASSIGNED,
    UNNAMED,
    Given,
    SilentAware,
    cell_loss,
    correlation_loss,
    crossed_loss,
    match,
    sight_loss,
)

K = 3


def dice(logits: Tensor, target: Tensor) -> Tensor:
    p = torch.sigmoid(logits)
    return 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)


def halves(*kinds: int) -> Given:
    """A frame of 4×4 whose left half is the first object and whose right half the second."""
    masks = torch.zeros(2, 4, 4)
    masks[0, :, :2], masks[1, :, 2:] = 1, 1
    return Given(torch.tensor(kinds, dtype=torch.long), masks[: len(kinds)])


def query(kind: int, where: Tensor | None = None, sure: float = 6.0) -> tuple[Tensor, Tensor]:
    """Logits of a query that names a category (K: none) and covers what is given."""
    classes = torch.zeros(K + 1)
    classes[kind] = sure
    return classes, torch.full((4, 4), -6.0) if where is None else where * 12 - 6


def frame(*queries: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.stack([c for c, _ in queries]), torch.stack([m for _, m in queries])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), M=st.integers(0, 3))
def test_the_assignment_is_the_cheapest_of_all(seed: int, M: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    classes, masks = torch.randn(4, K + 1, generator=stream), torch.randn(4, 5, 6, generator=stream)
    wanted = Given(torch.randint(K, (M,), generator=stream), (torch.rand(M, 5, 6, generator=stream) > 0.5).float())

    def cost(i: int, j: int) -> float:
        bce = F.binary_cross_entropy_with_logits(masks[i], wanted.masks[j])
        p = classes[i].softmax(-1)[wanted.kinds[j]]
        return float(COVERING * bce + OVERLAPPING * dice(masks[i], wanted.masks[j]) - NAMING * p)

    queries, objects = match(classes, masks, wanted)
    found = sum(cost(int(i), int(j)) for i, j in zip(queries, objects, strict=True))
    best = min(sum(cost(i, j) for j, i in enumerate(order)) for order in itertools.permutations(range(4), M))
    assert found == pytest.approx(best, abs=1e-4)
    assert sorted(objects.tolist()) == list(range(M))


def test_the_loss_is_the_printed_one() -> None:
    given_ = halves(2)
    classes, masks = frame(query(0), query(2, given_.masks[0]), query(K))
    found = sight_loss(classes[None], masks[None], [given_])
    log_p = classes.log_softmax(-1)
    losses = torch.stack([-log_p[0, K], -log_p[1, 2], -log_p[2, K]])
    weights = torch.tensor([UNASSIGNED, 1.0, UNASSIGNED])
    torch.testing.assert_close(found["class"], NAMING * (losses * weights).sum() / weights.sum())
    bce = F.binary_cross_entropy_with_logits(masks[1], given_.masks[0])
    torch.testing.assert_close(found["mask"], COVERING * bce)
    torch.testing.assert_close(found["dice"], OVERLAPPING * dice(masks[1], given_.masks[0]))


def test_a_perfect_answer_costs_next_to_nothing_and_the_order_of_the_objects_nothing() -> None:
    both = halves(0, 1)
    classes, masks = frame(query(1, both.masks[1], 12.0), query(0, both.masks[0], 12.0), query(K, sure=12.0))
    turned = Given(both.kinds.flip(0), both.masks.flip(0))
    one, other = (sight_loss(classes[None], masks[None], [wanted]) for wanted in (both, turned))
    assert float(sum(one.values())) < 0.2
    assert {name: float(value) for name, value in one.items()} == pytest.approx(
        {name: float(value) for name, value in other.items()}
    )


def silent_loss(silent: SilentAware, kind: int, where: Tensor, given_: Given) -> tuple[float, Tensor]:
    """The class term of a frame with a right query and another one, and the gradient of the other's classes."""
    classes, masks = frame(query(int(given_.kinds[0]), given_.masks[0]), query(kind, where))
    classes.requires_grad_()
    loss = sight_loss(classes[None], masks[None], [given_], silent)["class"]
    loss.backward()
    assert classes.grad is not None
    return float(loss.detach()), classes.grad[1]


def test_a_silent_object_is_taught_to_be_nothing_by_plain_and_left_alone_by_ignore() -> None:
    known, elsewhere = halves(0), halves(0, 1).masks[1]
    _, plain = silent_loss("plain", 1, elsewhere, known)
    assert plain[1] > 1e-3 > -1e-3 > plain[K], "pushed from its category to none"
    _, ignored = silent_loss("ignore", 1, elsewhere, known)
    assert not ignored.any()


def test_soft_says_what_a_silent_object_is_not() -> None:
    known, elsewhere = halves(0), halves(0, 1).masks[1]
    loss, right = silent_loss("soft", 1, elsewhere, known)
    assert right[0] > 0 > max(right[1], right[K]), "off the category that is given, towards all others"
    assert max(float(right.abs().max()) * 50, loss) < 0.05, "it is none of these already"
    classes, masks = frame(query(0, known.masks[0]), query(0, elsewhere))
    rows = classes.log_softmax(-1)
    printed = -math.log(1 - float(rows[1, 0].exp()))
    weights = 1 + UNASSIGNED
    found = sight_loss(classes[None], masks[None], [known], "soft")["class"]
    assert float(found) == pytest.approx(NAMING * (float(-rows[0, 0]) + UNASSIGNED * printed) / weights, rel=1e-3)


@pytest.mark.parametrize("silent", ["ignore", "soft"])
def test_only_doubt_is_spared(silent: SilentAware) -> None:
    known = halves(0)
    one, other = (silent_loss(kind, 1, known.masks[0], known) for kind in ("plain", silent))
    assert one[0] == other[0], "a second query on what is given is a duplicate"
    assert torch.equal(one[1], other[1])
    classes, masks = frame(query(0, known.masks[0]), query(1, halves(0, 1).masks[1], sure=0.5))
    terms = [sight_loss(classes[None], masks[None], [known], kind)["class"] for kind in ("plain", silent)]
    assert float(terms[0]) == float(terms[1]), "a query that names nothing with confidence is as in plain"


def test_a_frame_without_objects_teaches_none_and_no_masks() -> None:
    nothing = Given(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4, 4))
    classes, masks = frame(query(1), query(K))
    found = sight_loss(classes[None], masks[None], [nothing])
    assert float(found["class"]) > 0
    assert float(found["mask"]) == float(found["dice"]) == 0


def test_a_cell_is_named_by_what_covers_it() -> None:
    wanted = halves(0, 2)
    right = torch.full((1, K + 1, 2, 2), -6.0)
    right[0, 0, :, 0] = right[0, 2, :, 1] = 6.0
    assert float(cell_loss(right, [wanted])) < 0.01 < 5 < float(cell_loss(right.flip(-1), [wanted]))
    left_only = Given(wanted.kinds[:1], wanted.masks[:1])
    assert float(cell_loss(right, [left_only], "plain")) > 5, "the silent one is called nothing"
    assert float(cell_loss(right, [left_only], "ignore")) < 0.01


@pytest.mark.parametrize("silent", ["plain", "ignore", "soft"])
def test_an_object_without_a_name_is_something_whatever_it_is_called(silent: SilentAware) -> None:
    left = halves(0).masks[0]
    nothing = query(K, 1 - left)
    wrong = sight_loss(*(x[None] for x in frame(query(K, left), nothing)), [halves(UNNAMED)], silent)["class"]
    told = []
    for kind in range(K):
        classes, masks = frame(query(kind, left), nothing)
        assert [x.tolist() for x in match(classes, masks, halves(UNNAMED))] == [[0], [0]]
        told.append(sight_loss(classes[None], masks[None], [halves(UNNAMED)], silent)["class"])
        something = -math.log(1 - float(classes[0].softmax(0)[K]))
        empty = -math.log(float(classes[1].softmax(0)[K]))
        wanted = NAMING * (something + UNASSIGNED * empty) / (1 + UNASSIGNED)
        assert float(told[-1]) == pytest.approx(wanted, rel=1e-4)
    assert float(wrong) > 50 * float(told[0])


def test_a_cell_without_a_name_is_something() -> None:
    cells = torch.randn(1, K + 1, 4, 4)
    p = cells[0].softmax(0)[K]
    wanted = torch.cat([-torch.log(1 - p[:, :2]), -torch.log(p[:, 2:])], 1).mean()
    torch.testing.assert_close(cell_loss(cells, [halves(UNNAMED)]), wanted)


def test_correlation_is_bce_and_dice_of_sounding_frames() -> None:
    stream = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 4, 4, generator=stream), torch.zeros(2, 4, 4)
    target[0, :2] = 1
    found = correlation_loss(logits, target.bool())
    torch.testing.assert_close(found["bce"], F.binary_cross_entropy_with_logits(logits, target))
    torch.testing.assert_close(found["dice"], dice(logits[0], target[0]))


def test_what_does_not_fit_is_refused() -> None:
    classes, masks = frame(query(0))
    with pytest.raises(ConfigError, match="1 queries can't learn a frame of 2 objects"):
        match(classes, masks, halves(0, 1))
    with pytest.raises(ConfigError, match="1 frames, 2 lists"):
        sight_loss(classes[None], masks[None], [halves(0)] * 2)


def test_crossed_clips_are_scored_where_something_is_seen_lit_and_dark_ones_apart() -> None:
    stream = torch.Generator().manual_seed(5)
    logits, target = torch.randn(4, 6, 6, generator=stream), torch.zeros(4, 6, 6)
    seen = torch.rand(4, 6, 6, generator=stream)
    target[0, :2], target[2, 3:] = 1, 0.5
    found = crossed_loss(logits, target, seen)
    p = torch.sigmoid(logits)
    each = -(target * p.log() + (1 - target) * (1 - p).log())
    bce = [float((each[i] * seen[i]).sum() / seen[i].sum()) for i in range(4)]
    assert float(found["lit"]) == pytest.approx((bce[0] + bce[2]) / 2, rel=1e-5)
    assert float(found["dark"]) == pytest.approx((bce[1] + bce[3]) / 2, rel=1e-5)
    empty = crossed_loss(logits, target * 0, seen * 0)
    assert (float(empty["lit"]), float(empty["dark"])) == (0, 0)


def test_a_net_that_has_gone_astray_is_told_by_its_loss() -> None:
    classes, masks = torch.full((1, 3, 3), float("nan")), torch.zeros(1, 3, 4, 4)
    one = Given(torch.tensor([1]), torch.ones(1, 4, 4))
    assert bool(sight_loss(classes, masks, [one])["class"].isnan())
