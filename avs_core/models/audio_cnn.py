"""A small audio encoder for the built-in bundle, trained together with its segmentation net.

It stands where VGGish stands in the published model: one log-mel example (96 frames of 10 ms, 64 bands) in, 128
non-negative numbers out. Four 3×3 convolutions with batch norm and ReLU; time and frequency are pooled by mean and
maximum, so a short transient and a steady tone both leave a trace. About 0.45 million weights, 22 million products
an example: it has to train beside an image network on a CPU.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

EMBEDDING = 128
_WIDTHS = (32, 64, 128, 256)


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
