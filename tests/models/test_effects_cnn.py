"""The encoder that knows sound effects: its front end against sounds of which both spectrograms are known."""

import math

import numpy as np
import pytest
import torch
import torchaudio
from jaxtyping import Float
from parity.generate import normal

from avs_core.audio import window_examples
from avs_core.models.effects_cnn import BANDS, EMBEDDING, FRAMES, EffectsCNN, spectrogram

RATE = 44_100


def theirs(sound: Float[np.ndarray, " n"]) -> torch.Tensor:
    """The authors' spectrogram of 44.1 kHz sound, written from their paper with torchaudio's bands."""
    filters = torchaudio.functional.melscale_fbanks(1025, 0.0, RATE / 2, BANDS, RATE, mel_scale="htk")
    filters = filters / filters.sum(0).clamp(min=1e-9)
    power = torch.stft(
        torch.from_numpy(sound), 2048, 1024, window=torch.hann_window(2048), center=False, return_complex=True
    ).abs()
    return torch.log10(power.square().mT @ filters * 10_000 + 1) / 9.457798957824707


def tone(hertz: float, rate: int, amplitude: float = 0.1) -> Float[np.ndarray, " n"]:
    return (amplitude * np.sin(2 * math.pi * hertz * np.arange(rate) / rate)).astype(np.float32)


@pytest.mark.parametrize("hertz", [440.0, 1000.0, 2500.0, 6000.0])
def test_a_tone_is_in_the_authors_band_and_about_as_loud(hertz: float) -> None:
    ours = spectrogram(window_examples(tone(hertz, 16_000), 1))[0, 0].mean(0)
    wanted = theirs(tone(hertz, RATE)).mean(0)
    assert abs(int(ours.argmax()) - int(wanted.argmax())) <= 1
    assert float(ours.max()) == pytest.approx(float(wanted.max()), abs=0.06)


def test_noise_has_the_authors_level_where_16_khz_sound_has_any() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.05
    ours_at = torchaudio.functional.resample(torch.from_numpy(noise), RATE, 16_000).numpy()
    ours, wanted = spectrogram(window_examples(ours_at, 1))[0, 0].mean(0), theirs(noise).mean(0)
    assert float((ours - wanted)[6:66].abs().max()) < 0.12
    assert float(ours[70:].abs().max()) == 0.0


def test_silence_is_zero() -> None:
    assert float(spectrogram(window_examples(np.zeros(16_000, np.float32), 2)).abs().max()) == 0.0


def test_embeds_each_example_on_its_own() -> None:
    torch.manual_seed(0)
    net = EffectsCNN().eval()
    examples = normal("examples", (3, 1, 96, 64)) - 1
    with torch.inference_mode():
        together, alone = net(examples), torch.cat([net(example[None]) for example in examples])
    assert together.shape == (3, EMBEDDING)
    assert spectrogram(examples).shape == (3, 1, FRAMES, BANDS)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
