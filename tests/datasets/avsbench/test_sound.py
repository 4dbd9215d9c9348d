"""The sound of a clip: the wav first, the log-mel where there is none, and clear errors."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from avs_core.audio import window_examples
from avs_core.datasets.avsbench.layout import ClipFiles
from avs_core.datasets.avsbench.sound import decode_wav, read_sound
from avs_core.errors import DataError
from tests.avsbench_fixtures import wav

FILES = ClipFiles(frames=(), masks=(), wav="a.wav", log_mel="a.pkl")
GIVEN = torch.full((5, 1, 96, 64), 0.25)


def test_the_wav_comes_first(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(5, 440))
    (tmp_path / "a.pkl").write_bytes(b"not looked at")
    log_mel, waveform = read_sound(str(tmp_path), FILES, 5, "official")
    assert waveform is not None
    expected = 8000 / 32768 * np.sin(2 * np.pi * 440 * np.arange(80_000) / 16_000)
    assert np.abs(waveform - expected).max() < 1e-4
    assert np.array_equal(log_mel, window_examples(waveform, 5, "official").numpy())
    aligned, _ = read_sound(str(tmp_path), FILES, 5, "aligned")
    assert np.array_equal(aligned, window_examples(waveform, 5, "aligned").numpy())


def test_a_given_log_mel_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(GIVEN))
    log_mel, waveform = read_sound(str(tmp_path), FILES, 5, "official")
    assert waveform is None
    assert np.array_equal(log_mel, GIVEN.numpy())


def test_a_given_log_mel_has_the_official_alignment(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(GIVEN))
    with pytest.raises(DataError, match=r"'aligned' was asked for, and there is no a\.wav"):
        read_sound(str(tmp_path), FILES, 5, "aligned")


def test_one_of_them_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no a\.wav or a\.pkl"):
        read_sound(str(tmp_path), FILES, 5, "official")
    with pytest.raises(DataError, match=r"there is no a\.wav in"):
        read_sound(str(tmp_path), ClipFiles((), (), "a.wav", None), 5, "official")


def test_what_is_longer_than_the_clip_is_not_heard(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(7, 440))
    _, waveform = read_sound(str(tmp_path), FILES, 5, "official")
    assert waveform is not None
    assert len(waveform) == 80_000


def test_a_short_sound_repeats_its_last_window(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(3, 440))
    log_mel, _ = read_sound(str(tmp_path), FILES, 5, "official")
    assert log_mel.shape == (5, 1, 96, 64)
    assert np.array_equal(log_mel[4], log_mel[2])


@pytest.mark.parametrize("kept", [0, 20, 44, 1000, 159_000])
def test_a_sound_that_is_cut_off_is_refused(kept: int) -> None:
    with pytest.raises(DataError, match=r"audio/a\.wav"):
        decode_wav(wav(5, 440)[:kept], "audio/a.wav")


def test_a_sound_without_samples_is_refused() -> None:
    with pytest.raises(DataError, match=r"a\.wav"):
        decode_wav(wav(0, 440), "a.wav")


def test_a_header_of_unknown_length_is_read() -> None:
    """As ffmpeg writes it into a pipe."""
    piped = bytearray(wav(1, 440))
    piped[4:8] = piped[40:44] = b"\xff\xff\xff\xff"
    assert len(decode_wav(bytes(piped), "a.wav")) == 16_000
