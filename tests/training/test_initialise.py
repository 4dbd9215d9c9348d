"""The packaged weights are in the right places: they recognise photographs of the project."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tensor_bundle_file import write_tensors
from torch import nn

import avs_core.datasets
from avs_core.errors import CheckpointMismatch
from avs_core.models.backbones import build_backbone
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.models.yamnet import YAMNet
from avs_core.training.initialise import (
    LITE0_INPUT,
    in_order,
    lite0_classifier,
    load_lite0,
    load_yamnet,
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


def in_tensorflow(net: YAMNet) -> dict[str, torch.Tensor]:
    """The encoder's weights under TensorFlow's names and with its axes, among others that a SavedModel holds."""
    tensors = {"keras_api/metrics/0/total/.ATTRIBUTES/VARIABLE_VALUE": torch.tensor(0.0)}
    for i, layer in enumerate(net.layers):
        kernel = layer.convolution.weight.detach()
        axes, kind = ((2, 3, 1, 0), "kernel") if layer.convolution.groups == 1 else ((2, 3, 0, 1), "depthwise_kernel")
        mine = {
            (2 * i, kind): kernel.permute(axes),
            (2 * i + 1, "beta"): layer.norm.bias.detach(),
            (2 * i + 1, "moving_mean"): layer.norm.running_mean,
            (2 * i + 1, "moving_variance"): layer.norm.running_var,
        }
        for (number, name), tensor in mine.items():
            tensors[f"layer-1/_yamnet/layer_with_weights-{number}/{name}/.ATTRIBUTES/VARIABLE_VALUE"] = tensor
    tensors["layer-1/_yamnet/layer_with_weights-54/kernel/.ATTRIBUTES/VARIABLE_VALUE"] = torch.zeros(1024, 521)
    return tensors


def test_the_ear_of_the_package_is_read_without_tensorflow(tmp_path: Path) -> None:
    torch.manual_seed(0)
    known, encoder = YAMNet(), YAMNet()
    for layer in known.layers:
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(1, 2)
    tensors = in_tensorflow(known)
    load_yamnet(encoder, write_tensors(tmp_path / "variables", tensors))
    assert all(torch.equal(value, known.state_dict()[name]) for name, value in encoder.state_dict().items())
    del tensors[next(name for name in tensors if "moving_mean" in name)]
    with pytest.raises(CheckpointMismatch, match="it has 107 of 108 tensors"):
        load_yamnet(encoder, write_tensors(tmp_path / "less", tensors))


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
