"""An audio encoder that knows sound effects: trained by Ma and Lerch on libraries of them, fed with VGGish's log-mels.

Ma and Lerch, "Representation Learning for the Automatic Indexing of Sound Effects Libraries", ISMIR 2022; the network
is the 9-layer CNN of Kong et al., "DCASE 2018 Challenge baseline with convolutional neural networks",
arXiv 1808.00773: four blocks of two 3×3 convolutions with batch norm and ReLU, 2×2 max pooling after the first three;
mean over the bands, then the maximum over time. 4.7 million weights, 0.85 billion products an example.

Its authors fed it 44.1 kHz sound: power in 96 bands from 0 to 22 050 Hz, a frame every 1024 samples. Here it reads what
every encoder of ours is given, so any sound that could be read before can be read (ours): the bands of both front ends
lie on HTK's mel scale and are nearly as wide (39.5 and 40.4 mel), so one is interpolated from the other; above 7.5 kHz
there is nothing. On held-out recordings of the composite benchmark a linear probe names as many as with the authors'
front end (docs/log.md, 26).
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor, nn

from avs_core.audio import LOG_OFFSET, MEL_BANDS, MEL_HIGH_HZ, MEL_LOW_HZ, WINDOW, mel_filters

EMBEDDING = 512
BANDS, FRAMES = 96, 42
"""Of the authors' spectrogram, and how many of its frames lie in an example of 0.975 s."""

_WIDTHS = (64, 128, 256, 512)
_RATE, _FFT = 44_100, 2048
_GAIN, _LARGEST = 1e4, 9.457798957824707
"""Of the authors' logarithm, and the largest value in their data, by which they divide."""


class EffectsCNN(nn.Module):
    """(N, 1, 96, 64) log-mel examples → (N, 512) embeddings, each component ≥ 0."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, *_WIDTHS)
        self.blocks = nn.ModuleList(_block(before, width) for before, width in zip(widths, _WIDTHS, strict=False))

    def forward(self, log_mel: Float[Tensor, "N 1 96 64"]) -> Float[Tensor, "N 512"]:
        """Embed each example on its own."""
        x = spectrogram(log_mel)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i < len(self.blocks) - 1:
                x = F.max_pool2d(x, 2)
        return x.mean(3).amax(2)


def spectrogram(log_mel: Float[Tensor, "N 1 96 64"]) -> Float[Tensor, "N 1 42 96"]:
    """The authors' spectrogram, as far as 16 kHz sound tells it."""
    bands, width = (table.to(log_mel.device) for table in _tables())
    magnitude = (log_mel.float().exp() - LOG_OFFSET).clamp(min=0) / width
    # A tone is as loud as its window is long, and their window is the longer one.
    power = (magnitude * (_FFT / WINDOW)).square() @ bands
    return torch.log10(_GAIN * F.adaptive_avg_pool2d(power, (FRAMES, BANDS)) + 1) / _LARGEST


def _block(before: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c in (before, width):
        layers += [nn.Conv2d(c, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


@cache
def _tables() -> tuple[Float[Tensor, "64 96"], Float[Tensor, " 64"]]:
    """Shares of VGGish's bands in each of the authors', and how many Fourier bins each of VGGish's adds up.

    Linear between the two nearest centres, 0 beyond the ends.
    """
    ours, theirs = _centres(MEL_LOW_HZ, MEL_HIGH_HZ, MEL_BANDS), _centres(0.0, _RATE / 2, BANDS)
    at = (theirs - ours[0]) / (ours[1] - ours[0])
    share = np.maximum(0, 1 - np.abs(at - np.arange(MEL_BANDS)[:, None]))
    return torch.from_numpy(share).float(), mel_filters().sum(0).float()


def _centres(low_hz: float, high_hz: float, bands: int) -> Float64[np.ndarray, " bands"]:
    """Of bands that are equally wide on HTK's mel scale."""
    low, high = 1127 * np.log1p(np.array([low_hz, high_hz]) / 700)
    return np.linspace(low, high, bands + 2)[1:-1]
