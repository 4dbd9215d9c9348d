"""Audio encoders for the built-in bundle: where VGGish stands in the published model.

One log-mel example (96 frames of 10 ms, 64 bands) in, 128 non-negative numbers out.

`AudioCNN` learns all it knows from a recipe's recordings. Four 3×3 convolutions with batch norm and ReLU; time and
frequency are pooled by mean and maximum, so a short transient and a steady tone both leave a trace. About 0.45 million
weights, 22 million products an example: it has to train beside an image network on a CPU.

`EffectsCNN` hears with the convolutions of aiSFX (Ma and Lerch, "Representation learning for the automatic indexing of
sound effects libraries", ISMIR 2022; CC BY 4.0), which know many more sounds, and learns only what to make of them.
aiSFX wants another spectrogram: 96 bands up to 22 kHz, 43 frames a second. A linear map that was fitted once gives
nearly that from VGGish's. About 4.8 million weights, 0.8 billion products an example.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from avs_core.audio import EXAMPLE_FRAMES, HOP, LOG_OFFSET, MEL_BANDS, WINDOW
from avs_core.clip import AUDIO_RATE

EMBEDDING = 128
_WIDTHS = (32, 64, 128, 256)

_EFFECTS_WIDTHS = (64, 128, 256, 512)
_EFFECTS_BANDS = 96
_EFFECTS_RATE, _EFFECTS_WINDOW, _EFFECTS_HOP, _EFFECTS_FRAMES = 44100, 2048, 1024, 41
_FAINT = 1e-6
_PEAK = 100.0
"""Power of an example's loudest band, in units of where aiSFX's logarithm turns linear."""
_FULL_SCALE = 9.457799
"""The largest log-mel that aiSFX was trained on."""
_LOUDNESS = 0.1


class AudioCNN(nn.Module):
    """(N, 1, 96, 64) log-mel examples → (N, 128) embeddings, each component ≥ 0."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm2d(1)]
        before = 1
        for i, width in enumerate(_WIDTHS):
            stride = 2 if i == 0 else 1
            layers += [
                nn.Conv2d(before, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            if i < len(_WIDTHS) - 1:
                layers.append(nn.MaxPool2d(2))
            before = width
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Linear(2 * before, EMBEDDING)

    def forward(self, log_mel: Float[Tensor, "N 1 96 64"]) -> Float[Tensor, "N 128"]:
        """Embed each example on its own."""
        maps = self.features(log_mel)
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        return torch.relu(self.embedding(pooled))


class EffectsCNN(nn.Module):
    """(N, 1, 96, 64) log-mel examples → (N, 128) embeddings, each component ≥ 0.

    Only `embedding` is trained: the convolutions need no gradient and keep their statistics in train mode too.
    `bands` maps the bands, `spread` brings the features of the recordings in training to mean 0 and variance 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bands = nn.Linear(MEL_BANDS, _EFFECTS_BANDS)
        layers: list[nn.Module] = []
        before = 1
        for i, width in enumerate(_EFFECTS_WIDTHS):
            for _ in range(2):
                layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            if i < len(_EFFECTS_WIDTHS) - 1:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.spread = nn.BatchNorm1d(2 * before, affine=False)
        self.drop = nn.Dropout(0.3)
        self.embedding = nn.Linear(2 * before + 1, EMBEDDING)
        self.bands.requires_grad_(False)
        self.features.requires_grad_(False)

    def forward(self, log_mel: Float[Tensor, "N 1 96 64"]) -> Float[Tensor, "N 128"]:
        """Embed each example on its own. How loud it is enters beside what it sounds like."""
        amplitude = (log_mel[:, 0].float().exp() - LOG_OFFSET).clamp(min=0)
        power = coarse_frames().to(log_mel.device) @ amplitude.square()
        peak = power.amax((1, 2)).clamp(min=_FAINT)
        spectrogram = torch.log10(1 + _PEAK * power / peak[:, None, None]) / _FULL_SCALE
        with torch.no_grad():
            maps = self.features(self.bands(spectrogram)[:, None]).float().mean(dim=3)
            heard = self.spread(torch.cat([maps.amax(dim=2), maps.mean(dim=2)], dim=1))
        loudness = _LOUDNESS * peak.log()[:, None]
        return torch.relu(self.embedding(torch.cat([self.drop(heard), loudness], dim=1)))

    def train(self, mode: bool = True) -> "EffectsCNN":
        """What is not trained stays in eval mode."""
        super().train(mode)
        self.features.eval()
        self.spread.eval()
        return self


@cache
def coarse_frames() -> Float[Tensor, "41 96"]:
    """How much each of VGGish's frames counts in each of aiSFX's: its power window, squared Hann, around its middle."""
    ours = (torch.arange(EXAMPLE_FRAMES) * HOP + WINDOW / 2) / AUDIO_RATE
    theirs = torch.arange(_EFFECTS_FRAMES) * _EFFECTS_HOP / _EFFECTS_RATE
    turn = (ours - theirs[:, None]) / (_EFFECTS_WINDOW / _EFFECTS_RATE)
    weights = torch.cos(torch.pi * turn) ** 4 * (turn.abs() < 0.5)
    return weights / weights.sum(1, keepdim=True)
