"""VGGish against the published embedding."""

import numpy as np
import torch
from parity.generate import figures, generator, state_dict

from avs_core.audio import log_mel_examples
from avs_core.models.vggish import EMBEDDING, VGGish


def test_embedding_equals_the_published_one() -> None:
    net = VGGish().eval()
    net.load_state_dict(state_dict("vggish_keys.json"))
    wave = generator("wave").uniform(-0.5, 0.5, (80000,)) * np.hanning(80000)
    with torch.inference_mode():
        embedding = net(log_mel_examples(wave, 16_000))
    expected = torch.from_numpy(figures("vggish.npz")["embedding"])
    assert embedding.shape == (5, EMBEDDING)
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_no_example_no_embedding() -> None:
    with torch.device("meta"):
        assert VGGish()(torch.zeros(0, 1, 96, 64)).shape == (0, EMBEDDING)
