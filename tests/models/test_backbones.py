"""Strides and channels of the encoders, and the published names of their weights."""

import json

import pytest
import torch
from parity.generate import FOLDER

from avs_core.models.backbones import DEAD_WEIGHTS, STRIDES, BackboneName, build_backbone, published_backbone_key

CHANNELS: dict[BackboneName, tuple[int, int, int, int]] = {
    "pvt_v2_b5": (64, 128, 320, 512),
    "resnet50": (256, 512, 1024, 2048),
    "tf_efficientnet_lite0": (24, 40, 112, 320),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_four_maps_at_the_known_strides(name: BackboneName) -> None:
    backbone = build_backbone(name).eval()
    with torch.inference_mode():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert backbone.channels == CHANNELS[name]
    expected = [(1, c, 64 // s, 96 // s) for c, s in zip(CHANNELS[name], STRIDES, strict=True)]
    assert [tuple(x.shape) for x in maps] == expected


@pytest.mark.parametrize("name", CHANNELS)
def test_from_stride_8_on_the_last_map_is_averaged(name: BackboneName) -> None:
    torch.manual_seed(0)
    four, eight = build_backbone(name).eval(), build_backbone(name, finest=8).eval()
    eight.body.load_state_dict(four.body.state_dict())
    image = torch.randn(1, 3, 64, 128)
    with torch.inference_mode():
        wanted, found = four(image), eight(image)
    assert eight.channels == (*CHANNELS[name][1:], CHANNELS[name][-1])
    for ours, theirs in zip(found[:3], wanted[1:], strict=True):
        torch.testing.assert_close(ours, theirs)
    cells = found[2].unflatten(3, (2, 2)).unflatten(2, (1, 2))
    torch.testing.assert_close(found[3], cells.mean((3, 5)))


@pytest.mark.parametrize(("name", "short"), [("pvt_v2_b5", "ms3_pvt"), ("resnet50", "ms3_resnet")])
def test_published_names_are_one_to_one_and_complete(name: BackboneName, short: str) -> None:
    ours = [published_backbone_key(name, key) for key in build_backbone(name).body.state_dict()]
    listed = [key for key, _ in json.loads((FOLDER / f"{short}_keys.json").read_text())]
    dead = ("resnet.layer3_2.", "resnet.layer4_2.")
    alive = {key for key in listed if key.startswith(("encoder_backbone.", "resnet.")) and not key.startswith(dead)}
    assert len(ours) == len(set(ours))
    assert set(ours) == alive
    assert set(DEAD_WEIGHTS) == {"pvt_v2_b5", "resnet50"}


def test_swin_takes_any_multiple_of_its_coarsest_stride() -> None:
    name: BackboneName = "swin_base_patch4_window7_224"
    backbone = build_backbone(name).eval()
    with torch.inference_mode():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert backbone.channels == (128, 256, 512, 1024)
    assert [tuple(x.shape) for x in maps] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, STRIDES, strict=True)
    ]
