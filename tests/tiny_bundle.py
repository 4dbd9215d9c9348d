"""A bundle that is small enough to be made by a test."""

from pathlib import Path

import torch

from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import BundleConfig, save_bundle
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareNet


def tiny_instances(folder: Path) -> str:
    """A bundle that sees and hears something everywhere."""
    torch.manual_seed(0)
    made = InstanceAwareConfig(
        backbone="tf_efficientnet_lite0", categories=3, queries=5, learnt=1, channels=16, heads=2, hidden=8, finest=8
    )
    net = InstanceAwareNet(made).eval()
    net.classes.bias.data = torch.tensor([0.0, 0.0, 0.0, -3.0])
    net.kernels[4].weight.data *= 20
    config = BundleConfig(
        name="tiny", arch="instance_aware", instance_aware=made, audio_encoder="audio_cnn", size=64, threshold=0.4
    )
    save_bundle(folder, config, net, AudioCNN(), card="# Tiny\n", categories=("dog", "cat", "cow"))
    return str(folder)
