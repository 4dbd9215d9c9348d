"""decord against PyAV on what it may be given, and what it may not."""

import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from avs_core.media.decord_backend import choose_backend, decord_is_exact
from avs_core.media.probe import probe
from tests.media.clips import codes_of
from tests.media.conftest import decode_whole, positions
from tests.media.recipes import BASE, FAST

HAS_DECORD = sys.platform == "linux" and platform.machine() == "x86_64"


@pytest.mark.skipif(not HAS_DECORD, reason="decord has wheels for Linux on x86-64 only")
@pytest.mark.parametrize("rate", [1, 4])
def test_plain_h264_is_the_same_by_both(plain: Path, rate: int) -> None:
    assert decord_is_exact(probe(str(plain)))
    by_decord, by_pyav = (
        decode_whole(plain, backend="decord", rate=rate),
        decode_whole(plain, backend="pyav", rate=rate),
    )
    assert codes_of(by_decord.frames) == codes_of(by_pyav.frames)
    assert positions(by_decord) == positions(by_pyav)
    assert np.array_equal(by_decord.frame_time_us, by_pyav.frame_time_us)
    assert np.array_equal(by_decord.waveform, by_pyav.waveform)
    assert np.abs(by_decord.frames.astype(int) - by_pyav.frames).mean() < 3


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize("recipe", FAST[1:], ids=lambda recipe: recipe.name)
def test_other_files_fall_back_to_a_decoder_that_is_right(videos: Path, recipe: object) -> None:
    path = recipe.make(videos)  # type: ignore[attr-defined]
    by_decord, by_pyav = decode_whole(path, backend="decord"), decode_whole(path, backend="pyav")
    assert codes_of(by_decord.frames) == codes_of(by_pyav.frames)


def test_the_default_is_the_faster_exact_one(videos: Path) -> None:
    assert {choose_backend(probe(str(recipe.make(videos)))) for recipe in [BASE, *FAST[1:3]]} == {"pyav"}
