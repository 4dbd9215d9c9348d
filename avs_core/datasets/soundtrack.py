"""The sound of a scene: each voice placed on the time line, then mixed into one waveform."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from avs_core.clip import AUDIO_RATE
from avs_core.datasets.scenes import Voice

_BLOCK = AUDIO_RATE // 50
_LOUD_RMS = 0.1
_FADE = AUDIO_RATE // 100
_AUDIBLE_BELOW_LOUDEST = 10 ** (-30 / 20)
_AUDIBLE_BLOCKS = 5


@dataclass(frozen=True)
class Track:
    """One voice on the time line.

    waveform  (n,) float32 at 16 kHz, exactly zero in every second that `sounding` calls silent
    sounding  (T,) whether the voice is heard in second t: at least 0.1 s within 30 dB of its loudest
    envelope  (50 T,) loudness in [0, 1] every 20 ms
    """

    waveform: Float32[np.ndarray, " n"]
    sounding: Bool[np.ndarray, " T"]
    envelope: Float32[np.ndarray, " blocks"]


def normalise_sound(sound: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " m"]:
    """Cut silence off both ends (30 dB below the loudest block) and bring the loud parts to 0.1 RMS."""
    rms = _block_rms(sound)
    heard = np.flatnonzero(rms > max(rms.max(initial=0.0) * _AUDIBLE_BELOW_LOUDEST, 1e-6))
    if not heard.size:
        return np.zeros(_BLOCK, np.float32)
    cut = sound[heard[0] * _BLOCK : (heard[-1] + 1) * _BLOCK]
    return np.asarray(cut * (_LOUD_RMS / np.percentile(rms[heard], 95)), np.float32)


def lay_track(voice: Voice, sound: Float32[np.ndarray, " n"], seconds: int, rng: np.random.Generator) -> Track:
    """Repeat a normalised sound between the voice's start and stop, with pauses, and label each second."""
    count = max(2 * _FADE, round(len(sound) / voice.speed))
    pitched = np.interp(np.linspace(0, len(sound) - 1, count), np.arange(len(sound)), sound).astype(np.float32)
    track = np.zeros(seconds * AUDIO_RATE, np.float32)
    stop = min(round(voice.stop * AUDIO_RATE), len(track))
    at = round(voice.start * AUDIO_RATE)
    room = count - (stop - at)
    skip = int(rng.integers(0, room + 1)) if room > 0 else 0
    while at < stop:
        piece = _faded(pitched[skip : skip + stop - at])
        track[at : at + len(piece)] += piece * voice.gain
        at += len(piece) + round(voice.gap * rng.uniform(0.5, 1.5) * AUDIO_RATE)
        skip = 0
    return _label(track, seconds)


def _faded(piece: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    faded = piece.copy()
    length = min(_FADE, len(piece) // 2)
    if length:
        ramp = np.linspace(0, 1, length, dtype=np.float32)
        faded[:length] *= ramp
        faded[-length:] *= ramp[::-1]
    return faded


def _label(track: Float32[np.ndarray, " n"], seconds: int) -> Track:
    rms = _block_rms(track)
    audible = rms > max(rms.max() * _AUDIBLE_BELOW_LOUDEST, 1e-6)
    sounding = audible.reshape(seconds, -1).sum(1) >= _AUDIBLE_BLOCKS
    for second in np.flatnonzero(~sounding):  # a faint rest would contradict the label
        track[second * AUDIO_RATE : (second + 1) * AUDIO_RATE] = 0
    for second in np.flatnonzero(sounding[1:] != sounding[:-1]) + 1:
        edge = second * AUDIO_RATE
        track[edge - _FADE : edge] *= np.linspace(1, 0, _FADE, dtype=np.float32)
        track[edge : edge + _FADE] *= np.linspace(0, 1, _FADE, dtype=np.float32)
    envelope = _block_rms(track)
    return Track(track, sounding, (envelope / max(envelope.max(), 1e-6)).astype(np.float32))


def _block_rms(sound: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " blocks"]:
    padded = np.pad(sound, (0, -len(sound) % _BLOCK))
    return np.asarray(np.sqrt((padded.reshape(-1, _BLOCK) ** 2).mean(1)), np.float32)


def mix_tracks(
    tracks: list[Track], seconds: int, rng: np.random.Generator, room: bool, noise_db: tuple[float, float] | None
) -> Float32[np.ndarray, " n"]:
    """Sum the tracks, put them into a room, add background noise, and choose a level; peak at most 1."""
    mixed = np.zeros(seconds * AUDIO_RATE, np.float32)
    for track in tracks:
        mixed += track.waveform
    if room and mixed.any():
        mixed = _equalised(_reverberated(mixed, rng), rng)
    peak = 10 ** (rng.uniform(-20, -0.5) / 20)
    if mixed.any():
        mixed *= peak / np.abs(mixed).max()
    if noise_db and rng.random() < 0.85:
        # behind a sound as far below it as asked for; alone anything from a quiet room to a windy street
        level = 0.3 * peak * 10 ** (-rng.uniform(*noise_db) / 20) if mixed.any() else 10 ** (-rng.uniform(28, 70) / 20)
        mixed += _coloured_noise(len(mixed), rng) * level
    return np.clip(mixed, -1, 1).astype(np.float32)


def _reverberated(sound: Float32[np.ndarray, " n"], rng: np.random.Generator) -> Float32[np.ndarray, " n"]:
    """Add the tail of a random room: noise that decays by 60 dB within 0.1 to 0.8 s."""
    if rng.random() < 0.4:
        return sound
    decay = rng.uniform(0.1, 0.8)
    length = round(decay * AUDIO_RATE)
    tail = rng.standard_normal(length) * 10 ** (-3 * np.linspace(0, 1, length))
    tail *= rng.uniform(0.1, 0.6) / np.sqrt((tail**2).sum())
    size = 1 << (len(sound) + length - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]
    return (sound + wet).astype(np.float32)


def _equalised(sound: Float32[np.ndarray, " n"], rng: np.random.Generator) -> Float32[np.ndarray, " n"]:
    """A random smooth frequency response (± 9 dB over five octaves), sometimes a telephone's or a far microphone's."""
    if rng.random() < 0.4:
        return sound
    spectrum = np.fft.rfft(sound)
    hertz = np.maximum(np.fft.rfftfreq(len(sound), 1 / AUDIO_RATE), 20)
    decibel = np.interp(np.log2(hertz), np.log2([20, 250, 1000, 4000, 8000]), rng.uniform(-9, 9, 5))
    if rng.random() < 0.25:
        decibel -= 24 * np.maximum(0, np.log2(hertz / rng.uniform(2000, 6000)))
    return np.fft.irfft(spectrum * 10 ** (decibel / 20), len(sound)).astype(np.float32)


def _coloured_noise(length: int, rng: np.random.Generator) -> Float32[np.ndarray, " n"]:
    """Noise between white and brown, at RMS 1, slowly swelling."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hertz = np.maximum(np.fft.rfftfreq(length, 1 / AUDIO_RATE), 30)
    noise = np.fft.irfft(spectrum * hertz ** -rng.uniform(0, 1.0), length)
    swell = 1 + rng.uniform(0, 0.5) * np.sin(
        2 * np.pi * (rng.uniform(0.05, 0.4) * np.arange(length) / AUDIO_RATE + rng.random())
    )
    noise *= swell
    return np.asarray(noise / np.sqrt((noise**2).mean()), np.float32)
