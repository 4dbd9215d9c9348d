"""The sound of a unit: 16 kHz mono on the video clock, the same bytes wherever a unit starts.

A decoder remembers: the noise that AAC and AC-3 make up goes on from that of the frames before, and filters never
quite forget. So the clock is divided into blocks, each of which has a decoder of its own that begins at the same packet
whoever asks, and a unit takes the blocks that it touches. Within one, frames are laid end to end and resampled. Every
stretch of them starts at a multiple of rate / gcd(rate, 16000) input samples after the stream's own start, so that the
output samples of all blocks fall on the same instants.
"""

import math
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from jaxtyping import Bool, Float32

from avs_core.clip import AUDIO_RATE
from avs_core.media.mixdown import resample, to_mono
from avs_core.media.source import AnyPacket, pass_on_memory

BLOCK_S = 10
"""Seconds of the video clock that one decoder decodes: units of the usual lengths touch no block in part."""

PREROLL_S = 1
"""Seconds decoded before the first wanted sample: codecs and the resampler have forgotten their start by then."""

GAP_S = 0.05
"""Timestamps that disagree with the count of samples by more than this are believed: sound is missing, or doubled."""

SNAP_S = 0.0015
"""How far a rounded timestamp may lie from the multiple of the frame size that it stands for."""


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


class _Block:
    """The sound of [start_s, start_s + BLOCK_S) s, by a decoder that has heard nothing before its lead-in."""

    def __init__(
        self, start_s: int, decoder: AudioCodecContext, zero_s: Fraction, origin_s: Fraction, lead: int | None
    ) -> None:
        """`zero_s`: the clock's zero in the container's time. `origin_s`: when the stream starts. `lead`: as there."""
        self._start_s, self._decoder = start_s, decoder
        self._zero_s, self._origin_s, self._lead = zero_s, origin_s, lead
        self._stretches: list[_Stretch] = []

    def feed(self, packet: AnyPacket, at_s: Fraction, until_s: Fraction) -> bool:
        """Whether it failed and should not have: a decoder finds its feet in the lead-in, or the stream's beginning."""
        begun = bool(self._stretches) or at_s >= self._origin_s + PREROLL_S
        return not self._decode(packet, at_s) and begun and until_s > self._start_s

    def flush(self) -> None:
        """Take what the decoder holds back."""
        self._decode(None, Fraction(0))

    def _decode(self, packet: AnyPacket | None, at_s: Fraction) -> bool:
        try:
            for frame in self._decoder.decode(packet):
                if frame.samples:
                    self._take(frame, at_s)
        except av.FFmpegError as error:
            pass_on_memory(error)
            return False
        return True

    def _take(self, frame: AudioFrame, at_s: Fraction) -> None:
        last = self._stretches[-1] if self._stretches else None
        rate = frame.sample_rate
        if frame.pts is not None and frame.time_base is not None:
            at_s = frame.pts * frame.time_base - self._zero_s
        elif last:
            at_s = self._origin_s + Fraction(last.end) / rate
        position = float((at_s - self._origin_s) * rate)
        if last is None or last.rate != rate or abs(position - last.end) > GAP_S * rate:
            last = _Stretch(rate, self._lead)
            self._stretches.append(last)
        last.add(to_mono(frame), position)

    def sounds(self) -> Iterator[tuple[int, Float32[np.ndarray, " n"]]]:
        """(sample of the video clock at which it begins, samples at 16 kHz) of each stretch, within the block."""
        first, end = self._start_s * AUDIO_RATE, (self._start_s + BLOCK_S) * AUDIO_RATE
        for stretch in self._stretches:
            at, samples = stretch.resampled()
            at += round(self._origin_s * AUDIO_RATE)
            begin, stop = max(at, first), min(at + len(samples), end)
            if begin < stop:
                yield begin, samples[begin - at : stop - at]


def _new_decoder(stream: AudioStream, extradata: bytes | None) -> AudioCodecContext:
    """A decoder for a stream besides its own: that of an output stream which is to copy it, and is never written.

    `extradata`: how the stream was configured anew since its header, if it was.
    """
    with av.open("-", "w", format="null") as nowhere:
        decoder = nowhere.add_stream_from_template(stream, opaque=True).codec_context
    decoder.thread_count = 1
    if extradata is not None:
        decoder.extradata = extradata
    return decoder


class Soundtrack:
    """Collects the packets of one interval and gives its waveform."""

    def __init__(
        self,
        stream: AudioStream,
        zero_s: Fraction,
        interval: tuple[int, int],
        own: tuple[float, float],
        duration_s: float,
        lead: int | None,
    ) -> None:
        """Sound for whole seconds of the video clock, whose zero is `zero_s` of the container's.

        own   from when to when damage is the unit's: without the margins of `interval`, with what is behind the end
        lead  samples of the file's first frame of sound, if the container's clock is too coarse to count samples
        """
        self._stream, self._zero_s, self._lead = stream, zero_s, lead
        self._interval, self._own = interval, own
        self._duration_s = duration_s
        self._origin_s = (stream.start_time or 0) * (stream.time_base or Fraction(1, av.time_base)) - zero_s
        self._next_s = self._origin_s
        self._numbers = range(interval[0] // BLOCK_S, -(-interval[1] // BLOCK_S))
        self._blocks: dict[int, _Block] = {}
        self._extradata: bytes | None = None
        self.errors = 0
        self.failed_last = False
        self.done = False

    @property
    def wanted_from_s(self) -> int:
        """Where decoding has to begin for the first wanted sample to be right."""
        return self._numbers[0] * BLOCK_S - PREROLL_S

    @property
    def wanted_from_start(self) -> bool:
        """Whether the stream's first packets belong to it; in Matroska some may lie before the stream's own start."""
        return self.wanted_from_s <= self._origin_s <= self._wanted_to_s

    @property
    def _wanted_to_s(self) -> int:
        return (self._numbers[-1] + 1) * BLOCK_S + PREROLL_S

    def reached_by(self, packet: AnyPacket) -> bool:
        """Whether reading that begins with this packet of sound is early enough."""
        return self._time_of(packet) <= self.wanted_from_s

    def _time_of(self, packet: AnyPacket) -> Fraction:
        """Seconds of the video clock; a packet without a timestamp follows the one before."""
        if packet.pts is None or packet.time_base is None:
            return self._next_s
        return packet.pts * packet.time_base - self._zero_s

    def feed(self, packet: AnyPacket) -> None:
        """Decode one packet; one that fails is counted where it is the unit's own."""
        if not packet.size:
            return
        at_s = self._time_of(packet)
        self._next_s = at_s + (packet.duration or 0) * (packet.time_base or 0)
        if packet.has_sidedata("new_extradata"):
            self._extradata = bytes(packet.get_sidedata("new_extradata"))
        failures = [block.feed(packet, at_s, self._next_s) for block in self._blocks_from(at_s)]
        self.failed_last = any(failures) and self._counts(at_s)
        self.errors += self.failed_last
        self.done = at_s > self._wanted_to_s

    def _blocks_from(self, at_s: Fraction) -> list[_Block]:
        """The blocks that the packet of [at_s, _next_s) sounds in, lead-in and run-out included."""
        first = max(math.ceil((at_s - PREROLL_S) / BLOCK_S) - 1, self._numbers[0])
        stop = min(math.ceil((self._next_s + PREROLL_S) / BLOCK_S), self._numbers[-1] + 1)
        return [self._blocks.get(number) or self._begin(number) for number in range(first, stop)]

    def _begin(self, number: int) -> _Block:
        decoder = _new_decoder(self._stream, self._extradata)
        self._blocks[number] = _Block(number * BLOCK_S, decoder, self._zero_s, self._origin_s, self._lead)
        return self._blocks[number]

    def _counts(self, at_s: Fraction) -> bool:
        """Whether the packet of [at_s, _next_s) sounds in the unit's own seconds."""
        start_s, stop_s = self._own
        return at_s < stop_s and (self._next_s > start_s or at_s >= start_s)

    def finish(self) -> tuple[Float32[np.ndarray, " n"], float]:
        """(waveform, for how many seconds of picture at most there was no sound within one second)."""
        first, end = (seconds * AUDIO_RATE for seconds in self._interval)
        waveform = np.zeros(end - first, dtype=np.float32)
        covered = np.zeros(len(waveform), dtype=bool)
        for number in sorted(self._blocks):
            self._blocks[number].flush()
            for at, samples in self._blocks[number].sounds():
                begin, stop = max(at, first), min(at + len(samples), end)
                waveform[begin - first : max(stop - first, 0)] = samples[begin - at : max(stop - at, 0)]
                covered[begin - first : max(stop - first, 0)] = True
        return np.clip(waveform, -1, 1), self._missing_s(covered)

    def _missing_s(self, covered: Bool[np.ndarray, " n"]) -> float:
        start_s, stop_s = self._interval
        at = np.arange(start_s * AUDIO_RATE, stop_s * AUDIO_RATE)
        silent = ~covered & (at >= 0) & (at < round(self._duration_s * AUDIO_RATE))
        return float(silent.reshape(-1, AUDIO_RATE).sum(axis=1).max()) / AUDIO_RATE
