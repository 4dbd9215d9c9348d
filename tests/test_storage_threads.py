"""Calls for many objects at once: in order, side by side, and never a whole list of them ahead."""

import threading
from collections.abc import Iterator

import pytest

from avs_core import storage

THREADS = 4


def test_answers_come_in_the_order_of_the_items_whatever_finishes_first() -> None:
    last = threading.Event()

    def call(item: int) -> int:
        if item == 0:
            assert last.wait(30), "the others must not wait for the first"
        if item == THREADS - 1:
            last.set()
        return item * 10

    assert list(storage.in_threads(call, range(50), THREADS)) == [item * 10 for item in range(50)]


def test_a_list_of_any_length_is_taken_as_it_is_needed() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            yield taken
            taken += 1

    answers = storage.in_threads(lambda item: item, endless(), THREADS)
    assert [next(answers) for _ in range(1000)] == list(range(1000))
    assert taken < 1100


def test_an_error_comes_where_its_answer_is_due_and_ends_the_rest() -> None:
    asked: list[int] = []

    def call(item: int) -> int:
        asked.append(item)
        if item == 3:
            raise ValueError("the fourth")
        return item

    answers = storage.in_threads(call, range(100_000), THREADS)
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(answers)
    assert len(asked) < 100


def test_nothing_is_asked_of_an_empty_list() -> None:
    assert list(storage.in_threads(lambda item: item, [], THREADS)) == []
