"""A two-stage net and bundle small enough for a test."""

import torch
from parity.generate import normal

from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import Bundle, BundleConfig
from avs_core.models.two_stage import MaskRCNNConfig, TwoStageConfig, TwoStageNet

TINY = TwoStageConfig(
    backbone="tf_efficientnet_lite0",
    detector=MaskRCNNConfig(
        classes=2, pyramid=8, hidden=16, anchors=(8, 16, 24, 32, 48), proposals=20, objects=4, sampled=16
    ),
    channels=16,
    finest=8,
)


def tiny_net() -> TwoStageNet:
    """Random, but its box head takes every region for a thing, and its masks are neither empty nor full."""
    torch.manual_seed(0)
    net = TwoStageNet(TINY).eval()
    net.detector.roi_heads.box_predictor.cls_score.bias.data = torch.tensor([0.0, 1.0])
    net.head[4].weight.data *= 100
    with torch.inference_mode():
        middle = net(normal("frames", (1, 2, 3, 64, 64)), torch.zeros(1, 2, 128)).logits.median()
    net.head[4].bias.data -= middle
    return net


def tiny_bundle() -> Bundle:
    """That net, at 64 pixels."""
    config = BundleConfig(name="tiny", arch="two_stage", two_stage=TINY, audio_encoder="audio_cnn", size=64)
    return Bundle(config, (), tiny_net(), AudioCNN().eval(), "0" * 64)
