"""The tiny source set of the data set tests, and a trainee small enough to train in a test."""

import pytest
import torch

from avs_core.datasets.sources import Sources
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.training.initialise import LITE0_INPUT
from avs_core.training.network import TPAVITrainee, Trainee
from tests.datasets.conftest import tiny_sources

__all__ = ["tiny_sources"]

TINY_NET = TPAVIConfig(backbone="tf_efficientnet_lite0", channels=8, inner=4)


@pytest.fixture
def trainee(tiny_sources: Sources) -> Trainee:
    """Random weights throughout."""
    torch.manual_seed(0)
    return TPAVITrainee(TPAVINet(TINY_NET), AudioCNN(), LITE0_INPUT, len(tiny_sources.categories))
