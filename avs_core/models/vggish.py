"""VGGish (Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017), without PCA.

The published AVS models take its raw 128 numbers, after a ReLU and before any PCA or quantisation. Key names are
those of the public PyTorch port (`features.N`, `embeddings.N`), so that its weights load as they are.
"""

from jaxtyping import Float
from torch import Tensor, nn

EMBEDDING = 128
_POOL = 0
_PLAN = (64, _POOL, 128, _POOL, 256, 256, _POOL, 512, 512, _POOL)


def _convolutions() -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 1
    for width in _PLAN:
        if width == _POOL:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
            before = width
    return nn.Sequential(*layers)


class VGGish(nn.Module):
    """(N, 1, 96, 64) log-mel examples → (N, 128) embeddings, each component ≥ 0."""

    def __init__(self) -> None:
        super().__init__()
        self.features = _convolutions()
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, EMBEDDING),
            nn.ReLU(inplace=True),
        )

    def forward(self, log_mel: Float[Tensor, "N 1 96 64"]) -> Float[Tensor, "N 128"]:
        """Embed each example on its own."""
        # The weights come from a channels-last framework: flatten time, frequency, channel in that order.
        maps = self.features(log_mel).permute(0, 2, 3, 1)
        embedding: Tensor = self.embeddings(maps.flatten(1))
        return embedding
