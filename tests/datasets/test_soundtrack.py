"""Voices on the time line: labels agree with what is heard."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avs_core.datasets.scenes import Voice
from avs_core.datasets.soundtrack import lay_track, mix_tracks, normalise_sound
from tests.datasets.conftest import tone

RATE = 16_000


def _voice(start: float = 0.0, stop: float = 5.0, gap: float = 0.2, speed: float = 1.0, gain: float = 1.0) -> Voice:
    return Voice("any", "any:/a.wav", start, stop, gap, speed, gain)


def test_normalising_cuts_silence_and_levels() -> None:
    quiet = 0.01 * tone(500, 1.0)
    sound = np.concatenate([np.zeros(8000), quiet, np.zeros(4000)]).astype(np.float32)
    cut = normalise_sound(sound)
    assert len(cut) == pytest.approx(RATE, abs=700)
    assert np.sqrt((cut**2).mean()) == pytest.approx(0.1, rel=0.05)
    assert not normalise_sound(np.zeros(5000, np.float32)).any()


@given(
    start=st.floats(0, 4),
    length=st.floats(0.3, 5),
    gap=st.floats(0.02, 1.5),
    speed=st.floats(0.7, 1.4),
    seed=st.integers(0, 99),
)
def test_a_track_is_silent_exactly_where_its_label_says(
    start: float, length: float, gap: float, speed: float, seed: int
) -> None:
    sound = normalise_sound(tone(500, 0.4).astype(np.float32))
    voice = _voice(start, min(5.0, start + length), gap, speed)
    track = lay_track(voice, sound, 5, np.random.default_rng(seed))
    assert track.waveform.shape == (5 * RATE,)
    assert track.envelope.shape == (250,)
    for second in range(5):
        part = track.waveform[second * RATE : (second + 1) * RATE]
        assert bool(track.sounding[second]) == bool((np.abs(part) > 0.01).sum() > 400)
        if not track.sounding[second]:
            assert not part.any()
        if second + 1 <= voice.start or second >= voice.stop:
            assert not track.sounding[second]


def test_speed_changes_the_pitch() -> None:
    sound = normalise_sound(tone(500, 2.0).astype(np.float32))
    track = lay_track(_voice(speed=1.2, stop=1.0), sound, 1, np.random.default_rng(0))
    assert np.argmax(np.abs(np.fft.rfft(track.waveform))) == pytest.approx(600, abs=3)


def test_the_mix_is_the_sum_of_its_tracks_without_effects() -> None:
    rng = np.random.default_rng(0)
    low = lay_track(_voice(0.0, 2.0), normalise_sound(tone(300, 0.5).astype(np.float32)), 5, rng)
    high = lay_track(_voice(3.0, 5.0), normalise_sound(tone(900, 0.5).astype(np.float32)), 5, rng)
    mixed = mix_tracks([low, high], 5, rng, room=False, noise_db=None)
    total = low.waveform + high.waveform
    assert np.allclose(mixed / np.abs(mixed).max(), total / np.abs(total).max(), atol=1e-5)
    assert not mixed[2 * RATE : 3 * RATE].any()


def test_rooms_and_noise_keep_the_length_and_the_limits() -> None:
    track = lay_track(_voice(), normalise_sound(tone(300, 0.5).astype(np.float32)), 3, np.random.default_rng(0))
    for seed in range(30):
        mixed = mix_tracks([track], 3, np.random.default_rng(seed), room=True, noise_db=(6.0, 40.0))
        assert mixed.dtype == np.float32
        assert mixed.shape == (3 * RATE,)
        assert 0.05 < np.abs(mixed).max() <= 1
        silent = mix_tracks([], 3, np.random.default_rng(seed), room=True, noise_db=(6.0, 40.0))
        assert np.abs(silent).max() < 0.5
    assert not mix_tracks([], 3, np.random.default_rng(0), room=True, noise_db=None).any()
