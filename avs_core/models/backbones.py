"""Image encoders: four feature maps at strides 4, 8, 16 and 32.

timm keeps these networks better than we could; this module only fixes which ones a model may name and how the
published checkpoints of "Audio-Visual Segmentation" (ECCV 2022) call the same weights.
"""

import re
from typing import Any, Literal

import timm
from jaxtyping import Float
from torch import Tensor, nn

BackboneName = Literal["pvt_v2_b5", "resnet50", "tf_efficientnet_lite0"]

STRIDES = (4, 8, 16, 32)

# Stochastic depth of the published PVT-v2-b5; the others train without.
_DROP_PATH: dict[BackboneName, float] = {"pvt_v2_b5": 0.1}

_PVT_NAMES = {"downsample": "patch_embed", "blocks": "block", "norm": "norm"}

# Published weights that no forward pass ever reads: classifier heads, and the second branch of the ResNet.
DEAD_WEIGHTS: dict[BackboneName, str] = {
    "pvt_v2_b5": r"encoder_backbone\.head\.",
    "resnet50": r"resnet\.(?:fc|layer[34]_2)\.",
}


class Backbone(nn.Module):
    """A timm feature extractor with known strides.

    `channels`: the channels of the four maps, finest first.
    """

    channels: tuple[int, int, int, int]

    def __init__(self, name: BackboneName, pretrained: bool = False) -> None:
        super().__init__()
        options: dict[str, Any] = {"drop_path_rate": _DROP_PATH[name]} if name in _DROP_PATH else {}
        body: Any = timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=(-4, -3, -2, -1), **options
        )
        self.channels = tuple(body.feature_info.channels())
        self.body: nn.Module = body

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> tuple[Float[Tensor, "N _ _ _"], ...]:
        """Four maps (N, channels[i], H / STRIDES[i], W / STRIDES[i]); H and W are multiples of 32."""
        return tuple(self.body(images))


def build_backbone(name: BackboneName, pretrained: bool = False) -> Backbone:
    """The encoder called `name`; `pretrained` fetches timm's ImageNet weights over the network."""
    return Backbone(name, pretrained)


def published_backbone_key(name: BackboneName, key: str) -> str:
    """What the published code calls the weight `key` of timm's `name`."""
    if name == "pvt_v2_b5":
        key = re.sub(r"^patch_embed\.", "stages_0.downsample.", key).replace(".dwconv.", ".dwconv.dwconv.")
        # The published code counts the stages from 1.
        return re.sub(r"^stages_(\d)\.(\w+)", lambda m: f"encoder_backbone.{_PVT_NAMES[m[2]]}{int(m[1]) + 1}", key)
    return "resnet." + re.sub(r"^layer([34])\.", r"layer\1_1.", key)
