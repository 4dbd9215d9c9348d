"""The limit of a decoding process, and what is left of it."""

import math
import multiprocessing
from multiprocessing.connection import Connection

import pytest

from avs_core.media.memory import limit_memory, memory_left
from avs_core.media.source import SQUEEZED, pass_on_memory


def limited(answers: Connection) -> None:
    """In a process of its own, for a limit stays."""
    before = memory_left()
    limit_memory(64)
    left = memory_left()
    pass_on_memory(None)
    held = bytearray(64 * 2**20 - SQUEEZED)
    try:
        pass_on_memory(None)
        squeezed = False
    except MemoryError:
        squeezed = True
    answers.send((before, left, memory_left(), len(held), squeezed))


def test_a_complaint_with_little_memory_left_is_one_of_memory() -> None:
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=limited, args=(theirs,))
    process.start()
    assert mine.poll(60)
    before, left, after, held, squeezed = mine.recv()
    process.join()
    assert math.isinf(before)
    assert left == pytest.approx(64 * 2**20, abs=2**20)
    assert left - after == pytest.approx(held, abs=2**20)
    assert squeezed


def test_without_a_limit_a_complaint_is_one_of_the_file() -> None:
    pass_on_memory(None)
