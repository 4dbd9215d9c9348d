"""What goes through the encoder comes back in its place and its second."""

import io
import wave

import numpy as np
import pytest
from PIL import Image

from avs_core.datasets.benchmark.encoding import decode_frames, decode_sound, encode, png, wav

FPS, SECONDS = 16, 3


@pytest.fixture(scope="module")
def waveform() -> np.ndarray:
    """A click-free burst of 440 Hz in the middle second."""
    t = np.arange(16_000 * SECONDS) / 16_000
    return (0.4 * np.sin(2 * np.pi * 440 * t) * ((t >= 1) & (t < 2))).astype(np.float32)


@pytest.fixture(scope="module")
def mp4(waveform: np.ndarray) -> bytes:
    """Frames whose grey says their index."""
    frames = [np.full((64, 96, 3), 20 + 4 * index, np.uint8) for index in range(FPS * SECONDS)]
    return encode(frames, waveform, FPS, (64, 96), 20)


def test_the_same_bytes_every_time(waveform: np.ndarray) -> None:
    drawn = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    frames = [np.roll(drawn, index, 1) // 2 + index for index in range(FPS * SECONDS)]
    files = {encode(iter(frames), waveform, FPS, (80, 120), 24) for _ in range(6)}
    assert len(files) == 1


def test_the_frames_asked_for_come_back(mp4: bytes) -> None:
    shown = decode_frames(mp4, [15, 31, 47], 32)
    assert [frame.shape for frame in shown] == [(32, 32, 3)] * 3
    for index, frame in zip([15, 31, 47], shown, strict=True):
        assert float(frame.mean()) == pytest.approx(20 + 4 * index, abs=3)


def test_the_sound_comes_back_in_its_place(mp4: bytes, waveform: np.ndarray) -> None:
    heard = decode_sound(mp4, len(waveform)) / 32768
    assert heard.shape == waveform.shape
    lags = range(-200, 201)
    fit = [float(np.dot(np.roll(heard, -lag), waveform)) for lag in lags]
    assert abs(lags[int(np.argmax(fit))]) <= 2, "no delay of the encoder is left"
    assert np.corrcoef(heard, waveform)[0, 1] > 0.98
    assert decode_sound(mp4, len(waveform) + 8000).shape == (len(waveform) + 8000,)


def test_files_read_back() -> None:
    mask = np.zeros((8, 6), np.uint8)
    mask[2:4] = 255
    read = Image.open(io.BytesIO(png(mask)))
    assert read.mode == "L"
    assert np.array_equal(np.asarray(read), mask)
    samples = np.arange(-300, 300, dtype=np.int16)
    with wave.open(io.BytesIO(wav(samples))) as file:
        assert (file.getframerate(), file.getnchannels()) == (16_000, 1)
        assert np.array_equal(np.frombuffer(file.readframes(600), "<i2"), samples)
