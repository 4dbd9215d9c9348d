"""The audio encoders: shape, size, independence of the batch, and what is trained."""

import numpy as np
import pytest
import torch
from parity.generate import normal

from avs_core.audio import log_mel_examples
from avs_core.models.audio_cnn import EMBEDDING, AudioCNN, EffectsCNN, coarse_frames


@pytest.mark.parametrize("kind", [AudioCNN, EffectsCNN])
def test_embeds_each_example_on_its_own(kind: type[AudioCNN] | type[EffectsCNN]) -> None:
    torch.manual_seed(0)
    net = kind().eval()
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


def tone(hertz: float, amplitude: float) -> torch.Tensor:
    """One second of a sine as an example."""
    time = np.arange(16000) / 16000
    return log_mel_examples((amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32), 16000)


def test_only_the_last_layer_of_the_effects_encoder_is_trained() -> None:
    torch.manual_seed(0)
    net = EffectsCNN().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(normal("examples", (4, 1, 96, 64))).sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == {"embedding.weight", "embedding.bias"}
    # batch norms in train mode would have moved their statistics
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_effects_encoder_hears_loudness_only_beside_the_sound() -> None:
    torch.manual_seed(0)
    net = EffectsCNN().eval()
    for module in net.features:
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        net.embedding.weight[:, -1] = 0
        loud, soft, other = net(tone(440, 0.5)), net(tone(440, 0.05)), net(tone(3000, 0.5))
        assert float((loud - soft).abs().max()) < 0.1 * float((loud - other).abs().max())
        net.embedding.weight[:, -1] = 1
        assert float((net(tone(440, 0.5)) - net(tone(440, 0.05))).abs().max()) > 0.4


def test_the_effects_encoder_bears_digital_silence() -> None:
    silence = torch.full((1, 1, 96, 64), float(np.log(0.01)))
    assert bool(torch.isfinite(EffectsCNN().eval()(silence)).all())


def test_coarse_frames_are_means_around_their_middle() -> None:
    weights = coarse_frames()
    assert weights.shape == (41, 96)
    torch.testing.assert_close(weights.sum(1), torch.ones(41))
    # frame j lies at j · 1024 / 44100 s, ours at 12.5 ms + 10 ms · i
    middles = weights[1:-1] @ (0.0125 + 0.01 * torch.arange(96))
    torch.testing.assert_close(middles, torch.arange(1, 40) * 1024 / 44100, atol=2e-3, rtol=0)
