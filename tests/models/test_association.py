"""Objects keep their numbers while they can be followed, whatever order they are found in."""

import pytest
import torch
from torch import Tensor

from avs_core.models.association import MEMORY_S, Associator, ious

DOG, CAT, COW = torch.eye(3)


def box(left: int, top: int = 0, side: int = 4) -> Tensor:
    """A square on a map of 16×16."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def numbers(associate: Associator, time_s: float, *seen: tuple[Tensor, Tensor]) -> tuple[int, ...]:
    masks = torch.stack([mask for mask, _ in seen]) if seen else torch.zeros(0, 16, 16, dtype=torch.bool)
    return associate(float(time_s), masks, torch.stack([kind for _, kind in seen]) if seen else torch.zeros(0, 3))


def test_numbers_follow_the_objects_not_their_order() -> None:
    associate = Associator()
    assert numbers(associate, 0, (box(0), DOG), (box(8), CAT)) == (1, 2)
    assert numbers(associate, 1, (box(9), CAT), (box(1), DOG)) == (2, 1)
    assert numbers(associate, 2, (box(2), DOG), (box(6, 10), COW), (box(10), CAT)) == (1, 3, 2)


def test_two_of_a_kind_are_told_apart_by_where_they_are() -> None:
    associate = Associator()
    assert numbers(associate, 0, (box(0), DOG), (box(8), DOG)) == (1, 2)
    assert numbers(associate, 1, (box(9), DOG), (box(1), DOG)) == (2, 1)


def test_things_of_other_kinds_that_overlap_keep_their_own_numbers() -> None:
    associate = Associator()
    assert numbers(associate, 0, (box(0, side=8), DOG), (box(2, side=8), CAT)) == (1, 2)
    assert numbers(associate, 1, (box(0, side=8), CAT), (box(2, side=8), DOG)) == (2, 1)


def test_a_lost_object_is_waited_for_and_then_forgotten() -> None:
    associate = Associator()
    numbers(associate, 0, (box(0), DOG))
    assert numbers(associate, 1) == ()
    assert numbers(associate, MEMORY_S, (box(0), DOG)) == (1,)
    assert numbers(associate, 2 * MEMORY_S + 0.1, (box(0), DOG)) == (2,)


def test_nothing_in_common_is_something_new() -> None:
    associate = Associator()
    numbers(associate, 0, (box(0), DOG))
    assert numbers(associate, 1, (box(12, 12), CAT)) == (2,)


def test_iou_of_pairs() -> None:
    assert ious(torch.stack([box(0)]), torch.stack([box(0), box(2), box(8)]))[0].tolist() == pytest.approx(
        [1.0, 8 / 24, 0.0]
    )
    empty = torch.zeros(1, 16, 16, dtype=torch.bool)
    assert ious(empty, empty).item() == 0
