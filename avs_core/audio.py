"""Front ends: a waveform becomes what an audio encoder is fed, an example for each second.

VGGish's own is the default: log-mel examples, as published (Hershey et al., ICASSP 2017): magnitude of a short-time
Fourier transform (25 ms periodic Hann window, 10 ms hop, 512 points, no padding), 64 triangular bands on the HTK mel
scale from 125 to 7500 Hz, log(mel + 0.01), cut into examples of 96 frames. All in float64; only the result is float32.
The values are fixed by the pretrained network, so they are constants.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
import torchaudio
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from avs_core.clip import AUDIO_RATE
from avs_core.errors import ConfigError

WINDOW = 400
"""Samples of one analysis window: 25 ms."""
HOP = 160
"""Samples from one analysis window to the next: 10 ms."""
FFT = 512
MEL_BANDS = 64
MEL_LOW_HZ, MEL_HIGH_HZ = 125.0, 7500.0
LOG_OFFSET = 0.01
EXAMPLE_FRAMES = 96
EXAMPLE_HOP_S = EXAMPLE_FRAMES * HOP / AUDIO_RATE
"""Seconds from one published example to the next: 0.96, so they drift from the seconds of the video."""
EXAMPLE_SAMPLES = (EXAMPLE_FRAMES - 1) * HOP + WINDOW
"""Samples that one example looks at: 15600, or 0.975 s."""

Alignment = Literal["aligned", "official"]


def log_mel_examples(
    waveform: Float[np.ndarray, " n"] | Float[Tensor, " n"], sample_rate: int
) -> Float32[Tensor, "T 1 96 64"]:
    """Consecutive, non-overlapping examples of a mono waveform in [-1, 1].

    Other rates than 16 kHz are resampled first (torchaudio's windowed sinc). What is left at the end and fills no
    example is dropped: a waveform shorter than 0.975 s gives T = 0. Raises ConfigError for a rate that is not positive.
    """
    if sample_rate <= 0:
        raise ConfigError(f"a sample rate is a positive number of Hz, got {sample_rate}")
    samples = torch.as_tensor(waveform, dtype=torch.float64, device="cpu")
    if sample_rate != AUDIO_RATE:
        samples = torchaudio.functional.resample(samples, sample_rate, AUDIO_RATE)
    log_mel = _log_mel(samples)
    T = len(log_mel) // EXAMPLE_FRAMES
    return log_mel[: T * EXAMPLE_FRAMES].reshape(T, 1, EXAMPLE_FRAMES, MEL_BANDS).float()


def window_examples(
    waveform: Float[np.ndarray, " n"] | Float[Tensor, " n"],
    seconds: int,
    alignment: Alignment = "aligned",
    start_s: float | int = 0,
) -> Float32[Tensor, "T 1 96 64"]:
    """One example for each of the `seconds` = T seconds from `start_s` on, of a 16 kHz mono waveform.

    aligned    example k sounds in [start_s + k, start_s + k + 0.975)
    official   example k sounds in [start_s + 0.96·k, start_s + 0.96·k + 0.975); where the waveform ends before the
               last of them, the last whole example is repeated

    `start_s` may be negative or beyond the end; where the waveform says nothing there is silence.
    """
    if seconds < 1:
        raise ConfigError(f"a window has at least 1 second, got {seconds}")
    if alignment == "official":
        there = max(len(waveform) - round(start_s * AUDIO_RATE), EXAMPLE_SAMPLES)
        samples = _excerpt(waveform, start_s, min(seconds * AUDIO_RATE, there))
        examples = log_mel_examples(samples, AUDIO_RATE)
        return examples[torch.arange(seconds).clamp(max=len(examples) - 1)]
    starts = (start_s + k for k in range(seconds))
    return torch.cat([log_mel_examples(_excerpt(waveform, s, EXAMPLE_SAMPLES), AUDIO_RATE) for s in starts])


@runtime_checkable
class FrontEnd(Protocol):
    """What an audio encoder is fed. Compared with ==, and picklable: Ray sends it to its workers."""

    @property
    def reach(self) -> tuple[int, int]:
        """How many samples before the first of its seconds, and after the last, examples sound at most: ≥ 0.

        So much more is decoded on both sides of a unit; a front end that hears still further hears the cut.
        """

    def examples(
        self,
        waveform: Float[np.ndarray, " n"] | Float[Tensor, " n"],
        seconds: int,
        alignment: Alignment = "aligned",
        start_s: float | int = 0,
    ) -> Float32[Tensor, "T ..."]:
        """One example for each of the T seconds from `start_s` on, of a 16 kHz mono waveform in [-1, 1].

        `start_s` may be negative or beyond the end. Raises ConfigError for an alignment that it does not know.
        """


@dataclass(frozen=True)
class LogMel:
    """Examples (T, 1, 96, 64), see `window_examples`."""

    @property
    def reach(self) -> tuple[int, int]:
        """An example lasts 0.975 s from the start of its second on, or from earlier in its window (official)."""
        return 0, 0

    def examples(
        self,
        waveform: Float[np.ndarray, " n"] | Float[Tensor, " n"],
        seconds: int,
        alignment: Alignment = "aligned",
        start_s: float | int = 0,
    ) -> Float32[Tensor, "T 1 96 64"]:
        """See FrontEnd."""
        return window_examples(waveform, seconds, alignment, start_s)


@dataclass(frozen=True)
class Samples:
    """The waveform itself, (T, n): the `around_s` seconds whose middle is that of the second."""

    around_s: float = 1.0

    def __post_init__(self) -> None:
        if self.around_s <= 0:
            raise ConfigError(f"an example must last some time, got around_s {self.around_s}")

    @property
    def reach(self) -> tuple[int, int]:
        """See FrontEnd."""
        return max(self._early, 0), max(self._length - AUDIO_RATE - self._early, 0)

    @property
    def _length(self) -> int:
        return round(self.around_s * AUDIO_RATE)

    @property
    def _early(self) -> int:
        """Samples before its second at which an example starts: whole ones, so that no cut rounds otherwise."""
        return round((self.around_s - 1) / 2 * AUDIO_RATE)

    def examples(
        self,
        waveform: Float[np.ndarray, " n"] | Float[Tensor, " n"],
        seconds: int,
        alignment: Alignment = "aligned",
        start_s: float | int = 0,
    ) -> Float32[Tensor, "T samples"]:
        """See FrontEnd. Raises ConfigError for the official alignment, which is that of VGGish's examples of 0.96 s."""
        if alignment != "aligned":
            raise ConfigError(f"samples are taken second by second: alignment must be aligned, got {alignment}")
        if seconds < 1:
            raise ConfigError(f"a window has at least 1 second, got {seconds}")
        starts = ((start_s + k) * AUDIO_RATE for k in range(seconds))
        return torch.stack([_samples(waveform, round(start) - self._early, self._length).float() for start in starts])


LOG_MEL = LogMel()


def _excerpt(
    waveform: Float[np.ndarray, " n"] | Float[Tensor, " n"], start_s: float | int, samples: int
) -> Float64[Tensor, " samples"]:
    """`samples` samples from the time `start_s` on, silence outside the waveform."""
    return _samples(waveform, round(start_s * AUDIO_RATE), samples)


def _samples(
    waveform: Float[np.ndarray, " n"] | Float[Tensor, " n"], start: int, samples: int
) -> Float64[Tensor, " samples"]:
    """`samples` samples from the sample `start` on, which may be negative; silence outside the waveform."""
    source = torch.as_tensor(waveform, dtype=torch.float64, device="cpu")
    first, last = max(start, 0), min(start + samples, len(source))
    excerpt = torch.zeros(samples, dtype=torch.float64)
    if first < last:
        excerpt[first - start : last - start] = source[first:last]
    return excerpt


def _log_mel(samples: Float64[Tensor, " n"]) -> Float64[Tensor, "frames 64"]:
    """Log-mel energies of each whole analysis window."""
    if len(samples) < WINDOW:
        return samples.new_zeros(0, MEL_BANDS)
    hann = torch.hann_window(WINDOW, periodic=True, dtype=torch.float64)
    magnitude = torch.fft.rfft(samples.unfold(0, WINDOW, HOP) * hann, n=FFT).abs()
    return torch.log(magnitude @ mel_filters() + LOG_OFFSET)


@cache
def mel_filters() -> Float64[Tensor, "257 64"]:
    """The weight of each Fourier bin in each mel band. The constant component is in no band."""
    bins = _mel(torch.linspace(0, AUDIO_RATE / 2, FFT // 2 + 1, dtype=torch.float64))[:, None]
    low, high = _mel(torch.tensor([MEL_LOW_HZ, MEL_HIGH_HZ], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, MEL_BANDS + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    # Triangles that are straight on the mel scale, not in Hz.
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    filters = torch.minimum(rising, falling).clamp(min=0)
    filters[0] = 0
    return filters


def _mel(hertz: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """HTK's mel scale."""
    return 1127.0 * torch.log1p(hertz / 700.0)
