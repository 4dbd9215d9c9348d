"""The folded TPAVI against its printed N×N form, the whole net against the published figures."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.generate import figures, normal, state_dict, uniform
from pydantic import ValidationError
from torch import nn

from avs_core.errors import ConfigError
from avs_core.models.backbones import BackboneName
from avs_core.models.published import import_published
from avs_core.models.tpavi import TPAVI, TPAVIConfig, TPAVINet
from benchmarks.published_tpavi import PublishedTPAVI, as_published


def opened(block: nn.Module, seed: int = 0) -> None:
    """Move every weight off its start, or the audio path of a fresh block would say nothing."""
    stream = torch.Generator().manual_seed(seed)
    for p in block.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=stream)


def pair(channels: int = 16, audio_channels: int = 12, train: bool = False) -> tuple[TPAVI, PublishedTPAVI]:
    """The same block in both forms, with weights of their own."""
    folded = TPAVI(channels, audio_channels)
    opened(folded)
    folded.bn.running_mean = normal("mean", (channels,))
    folded.bn.running_var = 1 + normal("var", (channels,)).abs()
    return folded.train(train), PublishedTPAVI(copy.deepcopy(folded)).train(train)


@settings(max_examples=25, deadline=None)
@given(B=st.integers(1, 3), T=st.integers(1, 11), H=st.integers(1, 6), W=st.integers(1, 6))
def test_equals_the_printed_form_at_any_shape(B: int, T: int, H: int, W: int) -> None:
    folded, printed = pair()
    visual, audio = normal("V", (B, T, 16, H, W)), uniform("A", (B, T, 12))
    Z, aligned = folded(visual, audio)
    Z_printed, aligned_printed = printed(visual, audio)
    assert Z.shape == visual.shape
    torch.testing.assert_close(Z, Z_printed, atol=1e-5, rtol=0)
    torch.testing.assert_close(aligned, aligned_printed, atol=0, rtol=0)


def test_gradients_and_running_statistics_equal_the_printed_form() -> None:
    folded, printed = pair(train=True)
    results = []
    for block in (folded, printed):
        visual, audio = normal("V", (2, 5, 16, 4, 3)).requires_grad_(), uniform("A", (2, 5, 12)).requires_grad_()
        Z, aligned = block(visual, audio)
        ((Z * normal("dZ", tuple(Z.shape))).sum() + aligned.square().sum()).backward()
        results.append([visual.grad, audio.grad, *(p.grad for p in block.parameters())])
    for ours, theirs in zip(*results, strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.bn.running_mean, printed.weights.bn.running_mean)
    torch.testing.assert_close(folded.bn.running_var, printed.weights.bn.running_var)


def test_a_fresh_block_only_normalises() -> None:
    block, visual = TPAVI(8, 4), normal("V", (1, 2, 8, 3, 3))
    Z, _ = block(visual, uniform("A", (1, 2, 4)))
    expected = nn.functional.layer_norm(visual.movedim(2, -1), (8,)).movedim(-1, 2)
    torch.testing.assert_close(Z, expected)


def test_an_opened_block_hears() -> None:
    folded, _ = pair()
    visual = normal("V", (1, 3, 16, 4, 4))
    with torch.inference_mode():
        Z, Z_other = (folded(visual, uniform(name, (1, 3, 12)))[0] for name in ("A", "B"))
    assert float((Z - Z_other).abs().max()) > 1e-2


@pytest.fixture(scope="module")
def light() -> TPAVINet:
    torch.manual_seed(0)
    net = TPAVINet(TPAVIConfig(backbone="tf_efficientnet_lite0", channels=16, inner=8)).eval()
    for block in net.tpavi.values():
        opened(block)
    return net


@settings(max_examples=8, deadline=None)
@given(B=st.integers(1, 2), T=st.integers(1, 6), h=st.integers(1, 3), w=st.integers(1, 3))
def test_net_takes_any_clip_of_multiples_of_32(light: TPAVINet, B: int, T: int, h: int, w: int) -> None:
    with torch.inference_mode():
        output = light(normal("frames", (B, T, 3, 32 * h, 32 * w)), uniform("audio", (B, T, 128)))
    assert output.logits.shape == (B, T, 32 * h, 32 * w)
    for stride, Z, a in zip((4, 8, 16, 32), output.visual, output.audio, strict=True):
        assert Z.shape == (B, T, 16, 32 * h // stride, 32 * w // stride)
        assert float(Z.min()) >= 0
        assert a is not None
        assert a.shape == (B, T, 16)


def test_net_equals_itself_with_printed_blocks(light: TPAVINet) -> None:
    frames, audio = normal("frames", (1, 4, 3, 64, 96)), uniform("audio", (1, 4, 128))
    with torch.inference_mode():
        ours, theirs = light(frames, audio), as_published(copy.deepcopy(light))(frames, audio)
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-5, rtol=0)


def test_clips_of_a_batch_do_not_meet(light: TPAVINet) -> None:
    frames, audio = normal("frames", (2, 3, 3, 64, 64)), uniform("audio", (2, 3, 128))
    with torch.inference_mode():
        both, second = light(frames, audio).logits[1:], light(frames[1:], audio[1:]).logits
    torch.testing.assert_close(both, second, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(224, 100), (33, 64)])
def test_other_sizes_are_refused(light: TPAVINet, size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="multiples of 32"):
        light(torch.zeros(1, 1, 3, *size), torch.zeros(1, 1, 128))


def test_a_net_may_begin_at_stride_8() -> None:
    torch.manual_seed(0)
    net = TPAVINet(TPAVIConfig(backbone="tf_efficientnet_lite0", channels=16, inner=8, finest=8)).eval()
    with torch.inference_mode():
        output = net(normal("frames", (1, 2, 3, 64, 128)), uniform("audio", (1, 2, 128)))
    assert output.logits.shape == (1, 2, 64, 128)
    assert [Z.shape[-2:] for Z in output.visual] == [(8, 16), (4, 8), (2, 4), (1, 2)]
    with pytest.raises(ConfigError, match="multiples of 64"):
        net(torch.zeros(1, 1, 3, 96, 64), torch.zeros(1, 1, 128))


def test_one_look_serves_several_sounds(light: TPAVINet) -> None:
    frames = normal("frames", (1, 2, 3, 64, 64))
    with torch.inference_mode():
        seen = light.look(frames)
        for name in ("audio", "other"):
            audio = uniform(name, (1, 2, 128))
            assert torch.equal(light.listen(seen, audio).logits, light(frames, audio).logits)


def test_stages_classes_and_bias_are_settings() -> None:
    config = TPAVIConfig(
        backbone="tf_efficientnet_lite0", channels=16, inner=8, stages=(1, 3), classes=7, audio_bias=False
    )
    net = TPAVINet(config).eval()
    with torch.inference_mode():
        output = net(torch.zeros(1, 2, 3, 64, 64), torch.zeros(1, 2, 128))
    assert output.logits.shape == (1, 2, 7, 64, 64)
    assert [a is None for a in output.audio] == [True, False, True, False]
    assert not [name for name in net.state_dict() if name.endswith("align.bias")]


@pytest.mark.parametrize(
    "wrong", [{"stages": (4,)}, {"stages": (1, 0)}, {"stages": (1, 1)}, {"channels": 15}, {"backbone": "vgg"}, {"C": 1}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TPAVIConfig.model_validate({"backbone": "resnet50", **wrong})


def test_every_weight_of_the_light_net_is_trained(light: TPAVINet) -> None:
    net = copy.deepcopy(light).train()
    net(normal("frames", (2, 2, 3, 64, 64)), uniform("audio", (2, 2, 128))).logits.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("backbone", "short"), [("pvt_v2_b5", "ms3_pvt"), ("resnet50", "ms3_resnet")])
def test_published_figures(backbone: BackboneName, short: str) -> None:
    frames, audio = normal("frames", (10, 3, 224, 224)), uniform("audio", (10, 128))
    net = import_published(state_dict(f"{short}_keys.json"), backbone, "ms3")
    with torch.inference_mode():
        output = net(frames.unflatten(0, (2, 5)), audio.unflatten(0, (2, 5)))
    stored = {name: torch.from_numpy(values) for name, values in figures(f"{short}_forward.npz").items()}
    logits = output.logits.flatten(0, 1)[:, None, ::8, ::8]
    torch.testing.assert_close(logits, stored["logits"], atol=2e-3, rtol=0)
    for i, k in enumerate((8, 4, 2, 1)):
        Z, a = output.visual[i].flatten(0, 1)[:, ::32, ::k, ::k], output.audio[i][..., ::16]
        torch.testing.assert_close(Z, stored[f"z{i + 1}"], atol=1e-3, rtol=0)
        torch.testing.assert_close(a, stored[f"a{i + 1}"], atol=1e-3, rtol=0)


def test_the_ablation_adds_the_aligned_audio(light: TPAVINet) -> None:
    config = light.config.model_copy(update={"fusion": "add", "stages": (0, 2)})
    net = TPAVINet(config).eval()
    visual, audio = normal("visual", (2, 3, config.channels, 4, 4)), uniform("audio", (2, 3, 128))
    with torch.inference_mode():
        Z, aligned = net.tpavi["2"](visual, audio)
    weight, bias = net.tpavi["2"].align.weight, net.tpavi["2"].align.bias
    for b in range(2):
        for t in range(3):
            wanted = weight @ audio[b, t] + bias
            torch.testing.assert_close(aligned[b, t], wanted)
            torch.testing.assert_close(Z[b, t], visual[b, t] + wanted[:, None, None])
    assert {name.split(".")[2] for name in net.state_dict() if name.startswith("tpavi")} == {"align"}


def test_without_a_stage_nothing_is_heard(light: TPAVINet) -> None:
    net = TPAVINet(light.config.model_copy(update={"stages": ()})).eval()
    frames = normal("frames", (1, 2, 3, 64, 64))
    with torch.inference_mode():
        said = [net(frames, loud * uniform("audio", (1, 2, 128))) for loud in (0.0, 9.0)]
    assert torch.equal(said[0].logits, said[1].logits)
    assert said[0].audio == (None,) * 4
