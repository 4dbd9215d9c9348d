"""What the backbone's own classifier calls the regions of a picture. (ours)

The backbone learned a thousand categories from more than a million pictures; a head that learns ours from a few
pictures each knows those by heart and misnames others of their kind. So the old head stays: EfficientNet-Lite0's
(Tan and Le, ICML 2019; timm's `tf_efficientnet_lite0`), which averages a map over the whole picture, averages it over
a mask instead, and a table says which of its classes mean one of our categories.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CLASSES = 1000
"""Of ImageNet's classifiers."""

STRIDE = 32
"""Of the map that the head reads."""

_WIDTH, _EPSILON = 1280, 1e-3
_UNKNOWN = 0.05
"""Share of what is no class of the table, for each category that has none."""
_FLOOR = 1e-3


class KnownNames(nn.Module):
    """Regions of a map → log q_i(k), how likely each is one of K categories.

    table  which of the classifier's classes mean a category, 0 or 1; a row of zeros for what it does not know
    """

    table: Tensor

    def __init__(self, channels: int, categories: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 1, bias=False), nn.BatchNorm2d(_WIDTH, eps=_EPSILON), nn.ReLU6()
        )
        self.classifier = nn.Linear(_WIDTH, CLASSES)
        self.register_buffer("table", torch.zeros(categories, CLASSES))

    def forward(self, deepest: Float[Tensor, "F C y x"], masks: Float[Tensor, "F N h w"]) -> Float[Tensor, "F N K"]:
        """`deepest` is the backbone's map of stride 32, `masks` are logits."""
        share = self.classes(deepest, masks).softmax(-1)
        named = share @ self.table.T
        rest = (1 - named.sum(-1, keepdim=True)).clamp(min=0)
        return torch.where(self.table.any(1), named, _UNKNOWN * rest).add(_FLOOR).log()

    def classes(self, deepest: Float[Tensor, "F C y x"], masks: Float[Tensor, "F N h w"]) -> Float[Tensor, "F N 1000"]:
        """Logits of the classifier for what lies under each mask."""
        maps: Tensor = self.head(deepest)
        y, x = maps.shape[-2:]
        share = F.adaptive_avg_pool2d(torch.sigmoid(masks.float()), (y, x))
        share = share / share.sum((-2, -1), keepdim=True).clamp(min=1e-6)
        logits: Tensor = self.classifier(torch.einsum("fnyx,fcyx->fnc", share.to(maps.dtype), maps))
        return logits
