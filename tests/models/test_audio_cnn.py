"""The small audio encoder: shape, size, independence of the batch."""

import torch
from parity.generate import normal

from avs_core.models.audio_cnn import EMBEDDING, AudioCNN


def test_embeds_each_example_on_its_own() -> None:
    torch.manual_seed(0)
    net = AudioCNN().eval()
    examples = normal("examples", (3, 1, 96, 64))
    with torch.inference_mode():
        together = net(examples)
        alone = torch.cat([net(example[None]) for example in examples])
    assert together.shape == (3, EMBEDDING)
    assert float(together.min()) >= 0
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert float((together[0] - together[1]).abs().max()) > 1e-3


def test_is_small() -> None:
    assert 0.4e6 < sum(p.numel() for p in AudioCNN().parameters()) < 1e6


def test_every_weight_is_trained() -> None:
    torch.manual_seed(0)
    net = AudioCNN()
    net(normal("examples", (4, 1, 96, 64))).sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in net.parameters())
