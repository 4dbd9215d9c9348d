"""Image encoders: four feature maps at strides 4, 8, 16 and 32.

timm keeps these networks better than we could; this module only fixes which ones a model may name and how the
published checkpoints of "Audio-Visual Segmentation" (ECCV 2022) call the same weights.
"""

import re
from typing import Any, Literal

import timm
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from avs_core.errors import ConfigError

BackboneName = Literal["pvt_v2_b5", "resnet50", "swin_base_patch4_window7_224", "tf_efficientnet_lite0"]

STRIDES = (4, 8, 16, 32)
"""Of the published models' maps."""

Finest = Literal[4, 8]


def strides_from(finest: Finest) -> tuple[int, int, int, int]:
    """The strides of four maps, each twice the one before."""
    return finest, 2 * finest, 4 * finest, 8 * finest


def require_whole_cells(height: int, width: int, coarsest: int) -> None:
    """Raises ConfigError for frames whose coarsest map would have half a cell."""
    if height % coarsest or width % coarsest:
        raise ConfigError(f"frames must be multiples of {coarsest} pixels high and wide, got {height}×{width}: resize")


_OPTIONS: dict[BackboneName, dict[str, Any]] = {
    # Stochastic depth of the published PVT-v2-b5; the ResNet and the light one train without.
    "pvt_v2_b5": {"drop_path_rate": 0.1},
    # Made for 224 pixels; it takes any size when its windows are laid out anew for each picture.
    "swin_base_patch4_window7_224": {"strict_img_size": False},
}
_CHANNELS_LAST: frozenset[BackboneName] = frozenset({"swin_base_patch4_window7_224"})

_PVT_NAMES = {"downsample": "patch_embed", "blocks": "block", "norm": "norm"}

# Published weights that no forward pass ever reads: classifier heads, and the second branch of the ResNet.
DEAD_WEIGHTS: dict[BackboneName, str] = {
    "pvt_v2_b5": r"encoder_backbone\.head\.",
    "resnet50": r"resnet\.(?:fc|layer[34]_2)\.",
}


class Backbone(nn.Module):
    """A timm feature extractor with known strides.

    channels  of the four maps, finest first
    strides   theirs, in pixels: STRIDES, or twice these for `finest` 8, where the map of stride 4 is left out and one
              of stride 64 is added, which is the last one averaged over 2×2. So a net can look at pictures of twice
              the size with the same work after the backbone.
    """

    def __init__(self, name: BackboneName, pretrained: bool = False, finest: Finest = 4) -> None:
        super().__init__()
        self.strides = strides_from(finest)
        made = [STRIDES.index(stride) - len(STRIDES) for stride in self.strides if stride in STRIDES]
        body: Any = timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=tuple(made), **_OPTIONS.get(name, {})
        )
        channels: list[int] = body.feature_info.channels()
        self._pooled, self._channels_last = len(STRIDES) - len(made), name in _CHANNELS_LAST
        self.channels = (*channels, *channels[-1:] * self._pooled)
        self.body: nn.Module = body

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> tuple[Float[Tensor, "N _ _ _"], ...]:
        """Four maps (N, channels[i], H / strides[i], W / strides[i]); H and W are multiples of the last stride."""
        maps = list(self.body(images))
        if self._channels_last:
            maps = [rearrange(one, "N h w C -> N C h w") for one in maps]
        maps += [F.avg_pool2d(maps[-1], 2) for _ in range(self._pooled)]
        return tuple(maps)


def build_backbone(name: BackboneName, pretrained: bool = False, finest: Finest = 4) -> Backbone:
    """The encoder called `name`; `pretrained` fetches timm's ImageNet weights over the network."""
    return Backbone(name, pretrained, finest)


def published_backbone_key(name: BackboneName, key: str) -> str:
    """What the published code calls the weight `key` of timm's `name`."""
    if name == "pvt_v2_b5":
        key = re.sub(r"^patch_embed\.", "stages_0.downsample.", key).replace(".dwconv.", ".dwconv.dwconv.")
        # The published code counts the stages from 1.
        return re.sub(r"^stages_(\d)\.(\w+)", lambda m: f"encoder_backbone.{_PVT_NAMES[m[2]]}{int(m[1]) + 1}", key)
    return "resnet." + re.sub(r"^layer([34])\.", r"layer\1_1.", key)
