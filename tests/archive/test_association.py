"""Objects keep their numbers while they can be followed, whatever order they are found in."""

import numpy as np

from avs_core import masks
from avs_core.archive.association import MEMORY_US, Associator, Seen

SECOND = 1_000_000


def box(left: int, top: int = 0, side: int = 4, kind: str | None = "dog", certainty: float = 1.0, of: int = 16) -> Seen:
    """A square on a map of 16×16."""
    mask = np.zeros((of, of), bool)
    mask[top : top + side, left : left + side] = True
    return Seen(masks.encode(mask), kind, certainty)


def test_numbers_follow_the_objects_not_their_order() -> None:
    associate = Associator()
    assert associate.number(0, [box(0), box(8, kind="cat")]) == [1, 2]
    assert associate.number(1, [box(9, kind="cat"), box(1)]) == [2, 1]
    assert associate.number(2, [box(2), box(6, 10, kind="cow"), box(10, kind="cat")]) == [1, 3, 2]


def test_two_of_a_kind_are_told_apart_by_where_they_are() -> None:
    associate = Associator()
    assert associate.number(0, [box(0), box(8)]) == [1, 2]
    assert associate.number(1, [box(9), box(1)]) == [2, 1]


def test_things_of_other_kinds_that_overlap_keep_their_own_numbers() -> None:
    associate = Associator()
    assert associate.number(0, [box(0, side=8), box(2, side=8, kind="cat")]) == [1, 2]
    assert associate.number(1, [box(0, side=8, kind="cat"), box(2, side=8)]) == [2, 1]


def test_a_lost_object_is_waited_for_and_then_forgotten() -> None:
    associate = Associator()
    associate.number(0, [box(0)])
    assert associate.number(SECOND, []) == []
    assert associate.number(MEMORY_US, [box(0)]) == [1]
    assert associate.number(2 * MEMORY_US + 1, [box(0)]) == [2]


def test_nothing_in_common_is_something_new() -> None:
    associate = Associator()
    associate.number(0, [box(0)])
    assert associate.number(1, [box(12, 12, kind="cat")]) == [2]


def test_what_is_unsurely_of_one_kind_must_also_be_in_one_place() -> None:
    associate = Associator()
    associate.number(0, [box(0, certainty=0.6)])
    assert associate.number(1, [box(2, certainty=0.3)]) == [2]  # ½ · (1/3 + 0.3) is below what is needed
    associate = Associator()
    associate.number(0, [box(0, certainty=0.6)])
    assert associate.number(1, [box(2, certainty=0.5)]) == [1]


def strip(left: int, length: int, kind: str, certainty: float = 1.0) -> Seen:
    """A row of pixels on a map of 1×480."""
    mask = np.zeros((1, 480), bool)
    mask[0, left : left + length] = True
    return Seen(masks.encode(mask), kind, certainty)


def test_pairs_that_are_too_unlike_do_not_outbid_one_that_is_not() -> None:
    """The cow's own track has ½ · (0.32 + 0.446) = 0.383; 0.34 for its place and 0.095 for a drum's would be more."""
    cow, drum, moved = strip(50, 231, "cow"), strip(343, 126, "drum"), strip(169, 231, "cow", certainty=0.446)
    other = strip(6, 231, "dog")
    place = masks.ious([one.mask for one in (moved, other)], [one.mask for one in (cow, drum)])
    np.testing.assert_allclose(place, [[0.32, 0.19], [0.68, 0]], atol=1e-9)
    for beside, numbers in (([], [1]), ([other], [1, 3])):
        associate = Associator()
        assert associate.number(0, [cow, drum]) == [1, 2]
        assert associate.number(1, [moved, *beside]) == numbers


def test_nameless_objects_are_followed_by_their_place() -> None:
    associate = Associator()
    assert associate.number(0, [box(0, kind=None), box(8, kind=None)]) == [1, 2]
    assert associate.number(1, [box(9, kind=None), box(1, kind=None)]) == [2, 1]


def test_a_picture_of_another_size_is_a_new_scene() -> None:
    associate = Associator()
    associate.number(0, [box(0)])
    assert associate.number(1, [box(0, of=32)]) == [2]


def test_settled_numbers_are_followed_as_given_ones_are() -> None:
    given, settled = Associator(), Associator(last=2)
    assert given.number(0, [box(0), box(8)]) == [1, 2]
    settled.follow(0, {1: box(0), 2: box(8)})
    later = [box(9), box(1), box(6, 10, kind="cow")]
    assert given.number(SECOND, later) == settled.number(SECOND, later) == [2, 1, 3]
