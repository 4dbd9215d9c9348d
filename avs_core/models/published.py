"""The import of the published checkpoints of "Audio-Visual Segmentation" (ECCV 2022) as bundles of ours.

No pickle is ever executed: `.pth` files are read with `weights_only=True`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from avs_core.errors import CheckpointMismatch, ConfigError
from avs_core.models.backbones import DEAD_WEIGHTS, BackboneName, published_backbone_key
from avs_core.models.bundle import AVSS_CLASSES, BundleConfig, Setting, save_bundle
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.models.vggish import VGGish
from avs_core.models.weights import complaint, fill

# The coarsest fusion has nothing to skip from, yet the published checkpoints carry weights for it.
_DEAD_SKIP = r"path4\.resConfUnit1\."
_PUBLISHED_NAMES = (
    (r"neck\.(?P<level>\d)\.branches", "conv{level}.conv2d_list"),
    (r"decoder\.(?P<level>\d)\.rcu(?P<part>\d)", "path{level}.resConfUnit{part}"),
    (r"tpavi\.(?P<level>\d)\.align", "tpavi_b{level}.align_channel"),
    (r"tpavi\.(?P<level>\d)\.norm", "tpavi_b{level}.norm_layer"),
    (r"tpavi\.(?P<level>\d)\.W_z", "tpavi_b{level}.W_z.0"),
    (r"tpavi\.(?P<level>\d)\.bn", "tpavi_b{level}.W_z.1"),
    (r"tpavi\.(?P<level>\d)", "tpavi_b{level}"),
)


def import_published(
    state_dict: Mapping[str, Tensor], backbone: BackboneName = "pvt_v2_b5", setting: Setting = "ms3"
) -> TPAVINet:
    """A published state dict (S4, MS3 or AVSS; PVT-v2-b5 or ResNet-50) as a TPAVINet in eval mode.

    Published weights that no forward pass reads (classifier heads, the ResNet's second branch, the skip unit of
    the coarsest fusion) are left out. Raises CheckpointMismatch that names unknown, missing or misshapen weights.
    """
    if backbone not in DEAD_WEIGHTS:
        raise ConfigError(f"no checkpoint was published for {backbone}; choose one of {sorted(DEAD_WEIGHTS)}")
    semantic = setting == "avss"
    with torch.device("meta"):
        net = TPAVINet(TPAVIConfig(backbone=backbone, audio_bias=not semantic, classes=AVSS_CLASSES if semantic else 1))
    # DataParallel checkpoints carry a prefix on every key.
    bare = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    dead = re.compile(f"{DEAD_WEIGHTS[backbone]}|{_DEAD_SKIP}")
    alive = {name: tensor for name, tensor in bare.items() if not dead.match(name)}
    published = {_published_name(key, backbone): key for key in net.state_dict()}
    wrong = complaint({name: net.state_dict()[key] for name, key in published.items()}, alive, squeeze=True)
    if wrong:
        raise CheckpointMismatch(f"not a published {backbone} checkpoint for {setting}: {wrong}")
    fill(net, {published[name]: tensor for name, tensor in alive.items()})
    return net.eval()


def load_published(path: Path, backbone: BackboneName = "pvt_v2_b5", setting: Setting = "ms3") -> TPAVINet:
    """`import_published` of a `.pth` file. Nothing in the file is executed."""
    return import_published(_read_checkpoint(path), backbone, setting)


def import_bundle(
    folder: Path,
    checkpoint: Path,
    vggish: Path,
    backbone: BackboneName = "pvt_v2_b5",
    setting: Setting = "ms3",
) -> str:
    """Write a published checkpoint and the VGGish weights it was trained with as a bundle; returns the weights' sha256.

    Raises CheckpointMismatch when a file is not the one it is said to be.
    """
    net = load_published(checkpoint, backbone, setting)
    weights = _read_checkpoint(vggish)
    with torch.device("meta"):
        encoder = VGGish()
    wrong = complaint(encoder.state_dict(), weights)
    if wrong:
        raise CheckpointMismatch(f"{vggish} is not VGGish: {wrong}")
    fill(encoder, weights)
    name = f"tpavi-{backbone}-{setting}"
    trained_on = f"AVSBench {setting.upper()}, by the authors of arXiv 2207.05042"
    config = BundleConfig(
        name=name, tpavi=net.config, audio_encoder="vggish", alignment="official", trained_on=trained_on
    )
    card = (
        f"# {name}\n\nThe published TPAVI checkpoint `{checkpoint.name}`, trained on {trained_on}, "
        f"with the VGGish weights `{vggish.name}`. Imported as it is; see the paper for its figures.\n"
    )
    return save_bundle(folder, config, net, encoder, card)


def _read_checkpoint(path: Path) -> Mapping[str, Tensor]:
    """The state dict of a `.pth` file."""
    try:
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    # A file that is no checkpoint at all trips PyTorch's restricted unpickler over a byte it doesn't know.
    except (OSError, RuntimeError, EOFError, UnpicklingError, LookupError, ValueError) as fault:
        raise CheckpointMismatch(f"{path} is not a readable PyTorch checkpoint: {fault}") from fault
    if not isinstance(state_dict, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state_dict.values()):
        raise CheckpointMismatch(f"{path} holds no state dict of tensors; published files are bare state dicts")
    return state_dict


def _published_name(key: str, backbone: BackboneName) -> str:
    """What the published code calls our weight `key`."""
    if key.startswith("backbone.body."):
        return published_backbone_key(backbone, key.removeprefix("backbone.body."))
    for pattern, template in _PUBLISHED_NAMES:
        found = re.match(pattern, key)
        if found:
            # The published code counts the levels from 1.
            level = int(found["level"]) + 1
            return template.format(level=level, part=found.groupdict().get("part")) + key[found.end() :]
    return key.replace("head.", "output_conv.")
