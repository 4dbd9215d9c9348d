"""YAMNet, the encoder of an AudioSet tagger, without the layer that names its 521 kinds of sound.

Plakal and Ellis, "YAMNet", TensorFlow model garden, 2020 (Apache-2.0): MobileNet v1 (Howard et al., arXiv 1704.04861)
on the log-mel examples of VGGish, whose logarithm has another offset. 3.2 million weights, 0.07 billion products an
example. It was trained on AudioSet (Gemmeke et al., ICASSP 2017).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from avs_core.audio import LOG_OFFSET

EMBEDDING = 1024

_OFFSET = 0.001
"""Of YAMNet's logarithm."""

_FIRST = 32
_PLAN = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
"""Channels and stride of each separable layer."""

_EPSILON = 1e-4


class YAMNet(nn.Module):
    """(N, 1, 96, 64) log-mel examples → (N, 1024) embeddings, each component ≥ 0."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_Convolution(1, _FIRST, 3, 2)]
        before = _FIRST
        for width, stride in _PLAN:
            layers += [_Convolution(before, before, 3, stride, groups=before), _Convolution(before, width, 1)]
            before = width
        self.layers = nn.Sequential(*layers)

    def forward(self, log_mel: Float[Tensor, "N 1 96 64"]) -> Float[Tensor, "N 1024"]:
        """Embed each example on its own."""
        maps: Tensor = self.layers(shifted(log_mel))
        return maps.mean((2, 3))


class _Convolution(nn.Module):
    """Convolution, batch norm without a scale, ReLU."""

    def __init__(self, before: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.convolution = nn.Conv2d(before, width, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width, eps=_EPSILON)
        self.norm.weight.requires_grad_(False)

    def forward(self, x: Float[Tensor, "N _ _ _"]) -> Float[Tensor, "N _ _ _"]:
        return F.relu(self.norm(self.convolution(self._padded(x))))

    def _padded(self, x: Float[Tensor, "N _ _ _"]) -> Float[Tensor, "N _ _ _"]:
        """TensorFlow's "same": the odd zero of a stride comes last."""
        sides: list[int] = []
        for length in reversed(x.shape[-2:]):
            missing = max((-(-length // self.stride) - 1) * self.stride + self.kernel - length, 0)
            sides += [missing // 2, missing - missing // 2]
        return F.pad(x, sides) if any(sides) else x


def shifted(log_mel: Float[Tensor, "N 1 96 64"]) -> Float[Tensor, "N 1 96 64"]:
    """VGGish's log-mels with YAMNet's offset: the magnitudes are the same."""
    magnitude = (log_mel.float().exp() - LOG_OFFSET).clamp(min=0)
    return torch.log(magnitude + _OFFSET)
