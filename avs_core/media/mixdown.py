"""Decoded sound to what the models hear: any layout and sample format to mono, any rate to 16 kHz."""

import math

import av
import numpy as np
from av.audio.frame import AudioFrame
from jaxtyping import Float32

from avs_core.clip import AUDIO_RATE

CHUNK = 1 << 16
"""Samples handed to swresample at once."""

HALF, ROOT = 0.5, math.sqrt(0.5)
WEIGHTS = {
    "FC": 1.0, "FL": ROOT, "FR": ROOT, "FLC": ROOT, "FRC": ROOT, "DL": ROOT, "DR": ROOT,
    "BL": HALF, "BR": HALF, "SL": HALF, "SR": HALF, "BC": HALF, "LFE": 0.0, "LFE2": 0.0,
}  # fmt: skip
"""Share of each channel in the mono mix before it is normalised to a sum of 1: ITU-R BS.775, and what ffmpeg's
`-ac 1` writes to a 16-bit file. The effects channel is left out; a layout with other channels is averaged."""

UNNAMED = {
    2: ("FL", "FR"),
    3: ("FL", "FR", "LFE"),
    4: ("FL", "FR", "FC", "BC"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""The layouts that ffmpeg takes a number of channels for when the file does not name them."""


def mix_weights(channels: tuple[str, ...]) -> Float32[np.ndarray, " c"]:
    """Weights, summing to 1, by which the named channels become mono."""
    if "NONE" in channels:
        channels = UNNAMED.get(len(channels), channels)
    known = len(channels) > 1 and all(name in WEIGHTS for name in channels)
    weights = np.array([WEIGHTS[name] if known else 1.0 for name in channels], dtype=np.float64)
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def to_mono(frame: AudioFrame) -> Float32[np.ndarray, " n"]:
    """One decoded frame as mono in [-1, 1] (floating-point codecs may exceed it a little)."""
    raw = frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(-1, frame.layout.nb_channels).T
    offset, scale = (128.0, 1 / 128) if raw.dtype == np.uint8 else (0.0, 1.0)
    if raw.dtype.kind == "i":
        scale = 0.5 ** (8 * raw.dtype.itemsize - 1)
    samples = (raw.astype(np.float32) - np.float32(offset)) * np.float32(scale)
    names = tuple(channel.name for channel in frame.layout.channels)
    return np.asarray(mix_weights(names) @ samples, dtype=np.float32)


def resample(samples: Float32[np.ndarray, " n"], rate: int) -> Float32[np.ndarray, " m"]:
    """To 16 kHz by swresample with its default filter; sample 0 stays at the same instant."""
    if rate == AUDIO_RATE or not len(samples):
        return samples
    resampler = av.AudioResampler(format="flt", layout="mono", rate=AUDIO_RATE)
    out = []
    for start in range(0, len(samples), CHUNK):
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples[None, start : start + CHUNK]), "flt", "mono")
        frame.sample_rate = rate
        out += resampler.resample(frame)
    out += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in out])
