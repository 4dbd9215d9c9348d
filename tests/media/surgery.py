"""How a good file is broken: pure functions from bytes to bytes, so that a case says in one line what is wrong."""

import struct
from collections.abc import Callable

import numpy as np

Surgery = Callable[[bytes], bytes]


def cut(fraction: float) -> Surgery:
    """Keep this share of the file."""
    return lambda data: data[: int(len(data) * fraction)]


def headless(fraction: float) -> Surgery:
    """Lose this share at the start."""
    return lambda data: data[int(len(data) * fraction) :]


def without(start: float, stop: float) -> Surgery:
    """Lose the bytes between two shares of the file: what follows moves forward."""
    return lambda data: data[: int(len(data) * start)] + data[int(len(data) * stop) :]


def flipped(start: float, stop: float, count: int, length: int = 1) -> Surgery:
    """Random bytes at `count` places between two shares of the file."""

    def change(data: bytes) -> bytes:
        random, found = np.random.default_rng(0), bytearray(data)
        for at in random.integers(int(len(data) * start), int(len(data) * stop) - length, count):
            found[at : at + length] = random.bytes(length)
        return bytes(found)

    return change


def box_at(data: bytes, kind: bytes) -> tuple[int, int]:
    """[start, stop) of what the first box of a kind holds."""
    at = data.index(kind)
    return at + 4, at - 4 + struct.unpack_from(">I", data, at - 4)[0]


def zeroed(kind: bytes) -> Surgery:
    """A box that holds zeros alone."""

    def change(data: bytes) -> bytes:
        start, stop = box_at(data, kind)
        return data[:start] + bytes(stop - start) + data[stop:]

    return change


def scrambled(kind: bytes, length: int = 300) -> Surgery:
    """Random bytes from the start of a box."""

    def change(data: bytes) -> bytes:
        at = data.index(kind)
        return data[:at] + np.random.default_rng(0).bytes(length) + data[at + length :]

    return change


def before(kind: bytes) -> Surgery:
    """What precedes a box."""
    return lambda data: data[: data.index(kind) - 4]


def renamed(kind: bytes, name: bytes, count: int = -1) -> Surgery:
    """A box or code under another name."""
    return lambda data: data.replace(kind, name, count)


def field(kind: bytes, offset: int, number: int, form: str = ">I", occurrence: int = 0) -> Surgery:
    """A number at an offset behind the name of a box."""

    def change(data: bytes) -> bytes:
        at = -1
        for _ in range(occurrence + 1):
            at = data.index(kind, at + 1)
        at += len(kind) + offset
        return data[:at] + struct.pack(form, number) + data[at + struct.calcsize(form) :]

    return change


def all_of(*changes: Surgery) -> Surgery:
    """One after the other."""

    def change(data: bytes) -> bytes:
        for one in changes:
            data = one(data)
        return data

    return change


def packets_lost(start: float, stop: float, length: int = 188) -> Surgery:
    """Whole packets of a transport stream, gone."""

    def change(data: bytes) -> bytes:
        count = len(data) // length
        return data[: int(count * start) * length] + data[int(count * stop) * length :]

    return change
