"""The limit of a decoding process, and what is left of it."""

import math
import multiprocessing
import os
import resource
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from avs_core.clip import Unit, VideoRef
from avs_core.media.config import DecodeConfig
from avs_core.media.decode import GuardedDecoder
from avs_core.media.memory import limit_memory, memory_left
from avs_core.media.source import SQUEEZED, pass_on_memory
from benchmarks.scale import long_video


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


def limited_already(answers: Connection) -> None:
    """Whoever started the worker had set a limit (ulimit -d) that is less than what decoding may take."""
    hard = 2 << 30
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    limit_memory(4096)
    answers.send((resource.getrlimit(resource.RLIMIT_DATA), hard))


def test_a_limit_that_is_there_already_is_kept() -> None:
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=limited_already, args=(theirs,))
    process.start()
    assert mine.poll(60)
    found, hard = mine.recv()
    process.join()
    assert found == (hard, hard)


def test_without_a_limit_a_complaint_is_one_of_the_file() -> None:
    pass_on_memory(None)


@pytest.mark.slow
def test_a_process_holds_no_more_after_many_units_than_after_one(tmp_path: Path) -> None:
    """Containers and streams refer to each other: without a collection each unit leaves its packets behind."""
    long_video(tmp_path / "long", hours=0.5, fps=2)
    video = VideoRef(str(tmp_path / "long/long.mp4"), 1, "f")
    held: list[int] = []
    with GuardedDecoder(DecodeConfig(size=64)) as decoder:
        for index in range(6):
            decoder.decode(Unit(video, index * 300, index * 300 + 300, index, 6))
            held.append(held_by_children())
    assert held[-1] < held[0] + 256 * 2**20, held


def held_by_children() -> int:
    """Bytes of anonymous memory of this process's children."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    lines = [line for pid in children for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
