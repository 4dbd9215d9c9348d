"""Mixing and resampling by themselves; whole files are in test_clips.py."""

import numpy as np
import pytest

from avs_core.media.mixdown import mix_weights, resample

FFMPEGS = {
    ("FL", "FR"): (0.5, 0.5),
    ("FL", "FR", "FC", "LFE", "BL", "BR"): (0.2072, 0.2072, 0.293, 0, 0.1465, 0.1465),
    ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"): (0.1602, 0.1602, 0.2264, 0, 0.1132, 0.1132, 0.1132, 0.1132),
    ("FL", "FR", "FC", "BC"): (0.2426, 0.2426, 0.343, 0.1715),
}
"""Measured: ffmpeg's `-ac 1` of a constant in one channel at a time, to a 16-bit file."""


@pytest.mark.parametrize("channels", FFMPEGS)
def test_weights_are_ffmpegs(channels: tuple[str, ...]) -> None:
    np.testing.assert_allclose(mix_weights(channels), FFMPEGS[channels], atol=2e-4)
    np.testing.assert_allclose(mix_weights(("NONE",) * len(channels)), FFMPEGS[channels], atol=2e-4)


def test_a_single_channel_is_itself_and_a_strange_layout_is_averaged() -> None:
    assert mix_weights(("FC",)).tolist() == [1.0]
    assert mix_weights(("LFE",)).tolist() == [1.0]
    np.testing.assert_allclose(mix_weights(("FL", "TFL")), [0.5, 0.5])


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_a_tone_keeps_its_level_and_its_place(rate: int) -> None:
    """One second of 1 kHz; edges left out."""
    tone = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)).astype(np.float32)
    found = resample(tone, rate)
    assert abs(len(found) - 16_000) <= 1
    want = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(len(found)) / 16_000)
    assert np.abs(found - want)[200:-200].max() < 2e-3


def test_silence_of_no_length() -> None:
    assert len(resample(np.zeros(0, dtype=np.float32), 44100)) == 0
