"""The sound of a unit: 16 kHz mono on the video clock, cut on a grid that does not depend on where a unit starts.

Frames are mixed down by one fixed matrix, laid end to end, and resampled by swresample. Every stretch starts at a
multiple of rate / gcd(rate, 16000) input samples after the stream's own start, so that its output samples fall on the
same instants whether the file is read from its beginning or from the middle.
"""

import math
from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from jaxtyping import Float32

from avs_core.clip import AUDIO_RATE
from avs_core.media.source import AnyPacket, pass_on_memory

PREROLL_S = 1.0
"""Seconds decoded before the first wanted sample: codecs and the resampler have forgotten their start by then."""

GAP_S = 0.05
"""Timestamps that disagree with the count of samples by more than this are believed: sound is missing, or doubled."""

SNAP_S = 0.0015
"""How far a rounded timestamp may lie from the multiple of the frame size that it stands for."""

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


class _Stretch:
    """Sound without a gap at one rate. Positions count input samples from the stream's own start."""

    def __init__(self, rate: int, lead: int | None) -> None:
        """`lead`: samples of the file's first frame, where the clock ticks more slowly than samples do; else None."""
        self.rate = rate
        self._lead = lead
        self._parts: list[Float32[np.ndarray, " n"]] = []
        self._starts: list[float] = []
        self._length = 0

    def add(self, samples: Float32[np.ndarray, " n"], position: float) -> None:
        """`position` of the first sample by its timestamp."""
        self._starts.append(position - self._length)
        self._parts.append(samples)
        self._length += len(samples)

    @property
    def end(self) -> float:
        """Where the next frame should begin."""
        return self._starts[0] + self._length

    def start(self) -> int:
        """Where the stretch begins. Rounded timestamps scatter evenly around the truth: its middle is the best guess.

        The first frame may be trimmed and then has a timestamp of its own, so the others count. Frames of one size
        follow the file's first frame at multiples of it, which makes the guess exact.
        """
        others = self._starts[1:] or self._starts
        middle = (min(others) + max(others)) / 2
        sizes = {len(part) for part in self._parts[1:-1]}
        if self._lead is not None and len(sizes) == 1:
            size, first = sizes.pop(), len(self._parts[0])
            snapped = round((middle + first - self._lead) / size) * size + self._lead - first
            if abs(snapped - middle) <= SNAP_S * self.rate:
                return snapped
        return round(middle)

    def resampled(self) -> tuple[int, Float32[np.ndarray, " n"]]:
        """(first output sample after the stream's start, samples at 16 kHz), led by silence up to the common grid."""
        start = self.start()
        lead = start % (self.rate // math.gcd(self.rate, AUDIO_RATE))
        samples = np.concatenate([np.zeros(lead, dtype=np.float32), *self._parts])
        return (start - lead) * AUDIO_RATE // self.rate, resample(samples, self.rate)


class Soundtrack:
    """Collects the packets of one interval and gives its waveform."""

    def __init__(
        self, stream: AudioStream, zero_s: Fraction, interval: tuple[float, float], duration_s: float, lead: int | None
    ) -> None:
        """Sound for an interval of the video clock, whose zero is `zero_s` of the container's.

        `lead`: samples of the file's first frame of sound, if the container's clock is too coarse to count samples.
        """
        self._zero_s = zero_s
        self._interval, self._lead = interval, lead
        self._duration_s = duration_s
        self._tick = stream.time_base or Fraction(1, av.time_base)
        self._origin_s = (stream.start_time or 0) * self._tick - zero_s
        self._stretches: list[_Stretch] = []
        self.errors = 0
        self.failed_last = False
        self.heard = False
        self.done = False

    @property
    def wanted_from_s(self) -> float:
        """Where decoding has to begin for the first wanted sample to be right."""
        return max(self._interval[0] - PREROLL_S, float(self._origin_s))

    def feed(self, packet: AnyPacket) -> None:
        """Decode one packet; one that fails is counted, unless nothing has been decoded before it."""
        if self.done:
            return
        try:
            for frame in packet.decode():
                if isinstance(frame, AudioFrame) and frame.samples:
                    self._take(frame)
            self.failed_last = self.failed_last and not packet.size
        except av.FFmpegError as error:
            pass_on_memory(error)
            self.errors += self.heard
            self.failed_last = True

    def _take(self, frame: AudioFrame) -> None:
        last = self._stretches[-1] if self._stretches else None
        rate = frame.sample_rate
        position = last.end if last else 0.0
        if frame.pts is not None and frame.time_base is not None:
            at_s = frame.pts * frame.time_base - self._zero_s
            position = float((at_s - self._origin_s) * rate)
            self.done = at_s > self._interval[1] + PREROLL_S
        self.heard = True
        if last is None or last.rate != rate or abs(position - last.end) > GAP_S * rate:
            last = _Stretch(rate, self._lead)
            self._stretches.append(last)
        last.add(to_mono(frame), position)

    def finish(self) -> tuple[Float32[np.ndarray, " n"], float]:
        """(waveform, seconds of the picture for which there was no sound)."""
        start_s, stop_s = self._interval
        first = round(start_s * AUDIO_RATE)
        waveform = np.zeros(round(stop_s * AUDIO_RATE) - first, dtype=np.float32)
        covered = np.zeros(len(waveform), dtype=bool)
        origin = round(self._origin_s * AUDIO_RATE)
        for stretch in self._stretches:
            at, samples = stretch.resampled()
            begin = origin + at - first
            piece = slice(max(begin, 0), max(min(begin + len(samples), len(waveform)), 0))
            waveform[piece] = (
                samples[piece.start - begin : max(piece.stop - begin, 0)] if piece.stop > piece.start else 0
            )
            covered[piece] = True
        shown = slice(max(-first, 0), max(round(min(self._duration_s, stop_s) * AUDIO_RATE) - first, 0))
        return np.clip(waveform, -1, 1), float(np.count_nonzero(~covered[shown])) / AUDIO_RATE
