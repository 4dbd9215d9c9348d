"""The front end against the published log-mels, and where each example is taken."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.generate import figures, generator

from avs_core import audio
from avs_core.errors import ConfigError

RATE = 16_000


def noise(seconds: float, name: str = "noise") -> np.ndarray:
    return generator(name).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def test_log_mel_equals_the_published_values() -> None:
    wave = generator("wave").uniform(-0.5, 0.5, (80000,)) * np.hanning(80000)
    for waveform in (wave, torch.from_numpy(wave)):
        examples = audio.log_mel_examples(waveform, RATE)
        assert (examples.shape, examples.dtype) == ((5, 1, 96, 64), torch.float32)
        np.testing.assert_allclose(examples[:, :, ::4, ::4], figures("vggish.npz")["log_mel"], atol=1e-4, rtol=0)


def test_silence_is_the_log_of_the_offset() -> None:
    examples = audio.log_mel_examples(np.zeros(RATE, np.float32), RATE)
    assert torch.all(examples == np.float32(np.log(0.01)))


def test_a_tone_lights_its_own_band() -> None:
    t = np.arange(RATE) / RATE
    loudest = audio.log_mel_examples(np.sin(2 * np.pi * 1000 * t), RATE).mean(dim=(0, 1, 2)).argmax()
    mel = 1127 * np.log1p(np.array([125, 1000, 7500]) / 700)
    assert abs(float(loudest) - ((mel[1] - mel[0]) / (mel[2] - mel[0]) * 65 - 1)) <= 0.5


def test_the_constant_component_is_in_no_band() -> None:
    assert float(audio.mel_filters()[0].abs().sum()) == 0
    assert bool((audio.mel_filters().amax(dim=0) > 0).all())


@pytest.mark.parametrize("samples", [0, 399, 400, 15_599])
def test_too_short_gives_no_example(samples: int) -> None:
    assert len(audio.log_mel_examples(np.zeros(samples, np.float32), RATE)) == 0


def test_one_example_needs_975_ms() -> None:
    assert audio.EXAMPLE_SAMPLES == 15_600
    assert len(audio.log_mel_examples(np.zeros(15_600, np.float32), RATE)) == 1


def test_other_rates_are_resampled() -> None:
    t48, t16 = np.arange(3 * 48_000) / 48_000, np.arange(3 * RATE) / RATE
    at_48 = audio.log_mel_examples(np.sin(2 * np.pi * 440 * t48), 48_000)
    at_16 = audio.log_mel_examples(np.sin(2 * np.pi * 440 * t16), RATE)
    band = int(at_16[1].mean(dim=(0, 1)).argmax())
    assert at_48.shape == at_16.shape
    assert torch.allclose(at_48[1, 0, :, band], at_16[1, 0, :, band], atol=0.02)


@pytest.mark.parametrize("rate", [0, -16_000])
def test_a_rate_must_be_positive(rate: int) -> None:
    with pytest.raises(ConfigError, match="positive number of Hz"):
        audio.log_mel_examples(np.zeros(10, np.float32), rate)


@settings(max_examples=20, deadline=None)
@given(seconds=st.integers(1, 7), start=st.integers(-3, 9))
def test_aligned_examples_look_at_their_own_second(seconds: int, start: int) -> None:
    wave = noise(6)
    padded = np.concatenate([np.zeros(3 * RATE, np.float32), wave, np.zeros(20 * RATE, np.float32)])
    examples = audio.window_examples(wave, seconds, "aligned", start)
    assert len(examples) == seconds
    for k in range(seconds):
        own = padded[(start + k + 3) * RATE :][: audio.EXAMPLE_SAMPLES]
        assert torch.equal(examples[k], audio.log_mel_examples(own, RATE)[0])


def test_aligned_examples_do_not_depend_on_the_window() -> None:
    wave = noise(10)
    whole = audio.window_examples(wave, 10)
    assert torch.equal(whole[5:], audio.window_examples(wave, 5, start_s=5))
    assert torch.equal(whole[2:3], audio.window_examples(wave[2 * RATE :], 1))


def test_official_examples_are_those_of_the_whole_window() -> None:
    wave = noise(12)
    expected = audio.log_mel_examples(wave[5 * RATE : 10 * RATE], RATE)
    assert torch.equal(audio.window_examples(wave, 5, "official", 5), expected)


@pytest.mark.parametrize(("there", "whole"), [(3.2, 3), (1.0, 1), (0.5, 1)])
def test_official_repeats_the_last_whole_example(there: float, whole: int) -> None:
    wave = noise(there)
    examples = audio.window_examples(wave, 5, "official")
    assert len(examples) == 5
    assert all(torch.equal(examples[k], examples[whole - 1]) for k in range(whole, 5))
    assert whole < 2 or not torch.equal(examples[whole - 2], examples[whole - 1])


@pytest.mark.parametrize("alignment", ["aligned", "official"])
def test_beyond_the_sound_is_silence(alignment: audio.Alignment) -> None:
    for start in (-20.0, 20.0):
        examples = audio.window_examples(noise(2), 3, alignment, start)
        assert examples.shape == (3, 1, 96, 64)
        assert torch.all(examples == np.float32(np.log(0.01)))


def test_a_window_has_a_second() -> None:
    with pytest.raises(ConfigError, match="at least 1 second"):
        audio.window_examples(noise(1), 0)


@pytest.mark.parametrize("ear", [audio.LOG_MEL, *(audio.Samples(s) for s in (0.5, 1.0, 1.00005, 1.50005, 2.0, 10.0))])
def test_a_front_end_hears_as_far_as_it_says(ear: audio.FrontEnd) -> None:
    """Seconds 20 to 22 of noise: what is hushed beyond the reach is not heard; a sample within one is."""
    wave, (before, after) = noise(40), ear.reach
    first, last = 20 * RATE - before, 22 * RATE + after
    hushed = wave.copy()
    hushed[:first] = hushed[last:] = 0
    heard = ear.examples(wave, 2, start_s=20)
    assert torch.equal(ear.examples(hushed, 2, start_s=20), heard)
    for edge, needed in ((first, before), (last - 1, after)):
        louder = wave.copy()
        louder[edge] += 1
        assert not needed or not torch.equal(ear.examples(louder, 2, start_s=20), heard)


@pytest.mark.parametrize("around_s", [0.9375, 15_601 / RATE, 16_001 / RATE, 2.0, 24_001 / RATE])
@pytest.mark.parametrize("start_s", [0, 1 / 17])
def test_samples_do_not_depend_on_where_the_waveform_begins(around_s: float, start_s: float) -> None:
    """A length whose middle lies between two samples is rounded once, and not with each start."""
    wave, ear = noise(9), audio.Samples(around_s)
    for earlier in (1, 9):
        longer = np.concatenate([np.zeros(earlier * RATE, np.float32), wave])
        assert torch.equal(ear.examples(longer, 5, start_s=start_s + earlier), ear.examples(wave, 5, start_s=start_s))
