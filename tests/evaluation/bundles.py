"""Bundles small enough to evaluate in a test."""

from pathlib import Path

import torch

from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import Bundle, BundleConfig, load_bundle, save_bundle
from avs_core.models.tpavi import TPAVIConfig, TPAVINet


def tiny_bundle(folder: Path, stages: tuple[int, ...] = (0, 1, 2, 3), classes: int = 1) -> Bundle:
    """Random weights, its TPAVI blocks open, 64 pixels, 2 s at a time."""
    torch.manual_seed(len(stages))
    config = TPAVIConfig(backbone="tf_efficientnet_lite0", channels=8, inner=4, stages=stages, classes=classes)
    net = TPAVINet(config)
    for block in net.tpavi.values():
        torch.nn.init.ones_(block.bn.weight)
    whole = BundleConfig(name="tiny", tpavi=config, audio_encoder="audio_cnn", size=64, window_s=2, threshold=0.4)
    save_bundle(folder, whole, net, AudioCNN(), "card")
    return load_bundle(folder)
