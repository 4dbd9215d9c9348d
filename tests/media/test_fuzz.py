"""Good files with random damage: the guard always answers, and a file that lost bytes never passes for a whole one.

Bounded and seeded: a mutant that fails is made again by its number.
"""

import struct
import time
from pathlib import Path

import numpy as np
import pytest

from avs_core.clip import Clip
from avs_core.errors import DecoderCrashed, DecodeTimeout, MediaError
from avs_core.media.decode import DecodeConfig, DecodeLimits, GuardedDecoder
from tests.media.conftest import unit_of
from tests.media.recipes import BASE, MP3, MPEG4, MPG, OGV, OPUS, VP9, WMV

SEEDS = [
    BASE,
    BASE.but("faststart.mp4", args=("-movflags", "faststart")),
    BASE.but("fragments_av.mp4", args=("-movflags", "frag_keyframe")),
    BASE.but("plain.mkv"),
    BASE.but("plain.ts"),
    BASE.but("mpeg4.avi", video=MPEG4, sound_args=MP3),
    BASE.but("vp9.webm", video=VP9, sound_args=OPUS),
    WMV,
    OGV,
    MPG,
]
LIMITS = DecodeLimits(wall_s=10.0, no_progress_s=5.0, memory_mb=1024)
SLACK_S = 5.0
"""Killing a process and starting the next one."""

LENGTHS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1)
CUTS = ("cut",)
CHANGES = ("flip", "burst", "lose", "splice", "repeat", "length")


def mutant(data: bytes, other: bytes, kind: str, random: np.random.Generator) -> bytes:
    """The file with one kind of damage; `other` lends bytes for a splice."""
    size = len(data)
    at, to = sorted(random.integers(1, size, 2).tolist())
    if kind == "cut":
        return data[:to]
    if kind == "lose":
        return data[:at] + data[to:]
    if kind == "splice":
        return data[:at] + other[at:to] + data[to:]
    if kind == "repeat":
        return data[:to] + data[at:to] + data[to:]
    found = bytearray(data)
    if kind == "length":
        head = int(random.integers(0, min(size, 4096) - 4))
        struct.pack_into(">I" if random.random() < 0.5 else "<I", found, head, int(random.choice(LENGTHS)))
    elif kind == "flip":
        for place in random.integers(0, size, int(random.integers(1, 64))).tolist():
            found[place] ^= 1 << int(random.integers(0, 8))
    else:
        found[at : at + 64] = random.bytes(len(found[at : at + 64]))
    return bytes(found)


def survive(decoder: GuardedDecoder, path: Path) -> Clip | MediaError:
    """What becomes of a file, within the limits of its two requests."""
    started = time.monotonic()
    try:
        seconds = decoder.probe(str(path)).seconds
        found: Clip | MediaError = decoder.decode(unit_of(path, 0, min(seconds, 10)), DecodeConfig(size=64))
    except MediaError as fault:
        found = fault
    assert time.monotonic() - started < 2 * (LIMITS.wall_s + SLACK_S)
    return found


def fuzz(videos: Path, folder: Path, numbers: range) -> None:
    """Mutants by number. Of every second one the end is gone."""
    files = [recipe.make(videos) for recipe in SEEDS]
    with GuardedDecoder(limits=LIMITS) as decoder:
        for number in numbers:
            random = np.random.default_rng(number)
            source, other = files[number % len(files)], files[int(random.integers(len(files)))]
            kind = str(random.choice(CUTS if number % 2 else CHANGES))
            data = mutant(source.read_bytes(), other.read_bytes(), kind, random)
            path = folder / f"{number}_{kind}_{source.name}"
            path.write_bytes(data)
            found = survive(decoder, path)
            assert not isinstance(found, DecodeTimeout), f"{path.name}: {found}"
            # ffmpeg itself may crash, which is what the guard is for; our own code may not
            assert not (isinstance(found, DecoderCrashed) and "status" in str(found)), f"{path.name}: {found}"
            whole = isinstance(found, Clip) and not {"damaged", "audio_padded"} & {*found.flags}
            assert kind != "cut" or not whole, f"{path.name}: {len(data)} of {source.stat().st_size} bytes pass"
            path.unlink()
        assert decoder.decode(unit_of(files[0], 0, 3)).flags == ()


def test_damage_is_answered_and_a_lost_end_is_seen(videos: Path, tmp_path: Path) -> None:
    fuzz(videos, tmp_path, range(140))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 2000, 100))
def test_more_damage(videos: Path, tmp_path: Path, start: int) -> None:
    fuzz(videos, tmp_path, range(start, start + 100))
