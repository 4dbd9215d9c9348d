"""The instance-aware net: the correlation's formulas against their printed form, and what may depend on what."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from avs_core.errors import ConfigError
from avs_core.models.correlation import Composition, Proposals, noisy_or_logit
from avs_core.models.instance_aware import (
    InstanceAwareConfig,
    InstanceAwareNet,
    Sight,
    outside,
    peaks,
    positions,
    renamed,
)

K, N = 5, 6


def tiny(composition: Composition = "instances", seed: int = 0) -> InstanceAwareNet:
    """A small net in eval mode, with weights of its own."""
    torch.manual_seed(seed)
    config = InstanceAwareConfig(
        backbone="tf_efficientnet_lite0",
        categories=K,
        queries=N,
        learnt=2,
        channels=16,
        heads=2,
        hidden=8,
        finest=8,
        composition=composition,
    )
    return InstanceAwareNet(config).eval()


def clip(B: int = 1, T: int = 2, size: int = 64, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Frames and audio vectors."""
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, 3, size, size, generator=stream), torch.randn(B, T, 128, generator=stream)


def sight(classes: Tensor, masks: Tensor) -> Sight:
    """Proposals of one frame, by hand."""
    return Sight(torch.zeros(1, 1, K + 1, 4, 4), (Proposals(classes[None, None], masks[None, None]),))


def test_queries_in_bfloat16_stand_where_they_stand_in_float32() -> None:
    """Training is in bfloat16 and inference is not; a sure net says p(∅) below what bfloat16 tells from 0."""
    net, stream = tiny(), torch.Generator().manual_seed(2)
    named, cells = torch.randn(3, 16, 12, 12, generator=stream), 4 * torch.randn(3, K + 1, 12, 12, generator=stream)
    cells[:, -1] -= 4
    cells = cells.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        picked, where = net._pick(named, cells)
    wanted, there = net._pick(named, cells.float())
    assert torch.equal(picked, wanted)
    assert torch.equal(where, there)


def test_probabilities_are_as_fine_under_autocast() -> None:
    classes = torch.randn(1, 1, 7, K + 1, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = Proposals(classes, torch.zeros(1, 1, 7, 2, 2)).probabilities
    assert torch.equal(found, classes.float().softmax(-1)[..., :-1])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 7))
def test_noisy_or_is_the_printed_formula(seed: int, n: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    shares, masks = torch.rand(2, n, generator=stream), torch.rand(2, n, 3, 4, generator=stream)
    printed = 1 - torch.prod(1 - shares[..., None, None] * masks, dim=1)
    torch.testing.assert_close(torch.sigmoid(noisy_or_logit(shares, masks)), printed, atol=1e-5, rtol=1e-4)


def test_noisy_or_is_finite_with_finite_gradients_at_both_ends() -> None:
    shares = torch.tensor([[0.0, 1.0]]).requires_grad_()
    masks = torch.tensor([[[[0.0, 1.0]], [[0.0, 1.0]]]])
    logits = noisy_or_logit(shares, masks)
    logits.sum().backward()
    assert logits[0, 0, 0] < -10
    assert logits[0, 0, 1] > 10
    assert shares.grad is not None
    assert bool(shares.grad.isfinite().all())


@pytest.mark.parametrize("composition", ["instances", "categories", "all"])
def test_listening_is_the_printed_correlation(composition: Composition) -> None:
    net, (_, audio) = tiny(composition), clip(T=1)
    stream = torch.Generator().manual_seed(3)
    classes, masks = torch.randn(N, K + 1, generator=stream), torch.randn(N, 8, 8, generator=stream)
    said = net.listen(sight(classes, masks), audio)
    p, a, m = classes.softmax(-1)[:, :K], torch.sigmoid(net.hearing(audio)[0, 0]), torch.sigmoid(masks)
    shares = p.sum(1) if composition == "all" else p @ a
    if composition != "categories":
        dark = torch.stack([1 - shares[i] * m[i] for i in range(N)]).prod(0)
    else:
        best = p.argmax(0)
        dark = torch.stack([1 - a[k] * p[best[k], k] * m[best[k]] for k in range(K)]).prod(0)
    middle = torch.sigmoid(said.logits[0, 0])[3::8, 3::8] + torch.sigmoid(said.logits[0, 0])[4::8, 4::8]
    torch.testing.assert_close(said.sounding[0, 0], shares)
    # the four pixels about the middle of a cell are nearest to it
    torch.testing.assert_close(middle / 2, 1 - dark, atol=0.08, rtol=0)


def test_an_object_whose_category_is_not_heard_stays_dark_and_both_are_lit_when_both_sound() -> None:
    net = tiny()
    classes = torch.full((N, K + 1), -9.0)
    classes[:, K] = 9.0
    classes[0, K] = classes[1, K] = -9.0
    classes[0, 0] = classes[1, 1] = 9.0
    masks = torch.full((N, 8, 8), -9.0)
    masks[0, :, :4], masks[1, :, 4:] = 9.0, 9.0

    def lit(*heard: int) -> tuple[float, float]:
        scores = torch.full((K,), -9.0)
        scores[list(heard)] = 9.0
        net.hearing = torch.nn.Sequential(torch.nn.Linear(128, K))
        torch.nn.init.zeros_(net.hearing[0].weight)
        net.hearing[0].bias.data = scores
        with torch.inference_mode():
            probability = torch.sigmoid(net.listen(sight(classes, masks), torch.zeros(1, 1, 128)).logits[0, 0])
        return float(probability[:, :24].mean()), float(probability[:, 40:].mean())

    for heard, (left, right) in {(0,): (1, 0), (1,): (0, 1), (0, 1): (1, 1), (): (0, 0), (2,): (0, 0)}.items():
        assert lit(*heard) == pytest.approx((left, right), abs=0.02)


def test_shapes_of_any_number_of_frames() -> None:
    net = tiny()
    for T in (1, 3):
        said = net(*clip(B=2, T=T))
        assert said.logits.shape == (2, T, 64, 64)
        assert said.heard.shape == (2, T, K)
        assert said.sounding.shape == (2, T, N)
        assert said.sight.cells.shape == (2, T, K + 1, 4, 4)
        assert [layer.masks.shape for layer in said.sight.layers] == [(2, T, N, 8, 8)] * 4


def test_a_second_knows_of_no_other() -> None:
    net, (frames, audio) = tiny(), clip(T=3)
    whole, alone = net(frames, audio).logits[:, 1], net(frames[:, 1:2], audio[:, 1:2]).logits[:, 0]
    torch.testing.assert_close(whole, alone, atol=1e-4, rtol=1e-4)


def test_sound_changes_nothing_that_is_seen() -> None:
    net, (frames, audio) = tiny(), clip()
    seen = net.look(frames)
    one, other = net.listen(seen, audio), net.listen(seen, -audio)
    assert one.sight is other.sight is seen
    assert not torch.equal(one.logits, other.logits)


def test_gradients_reach_every_weight() -> None:
    net = tiny().train()
    said = net(*clip(T=2))
    layers = [layer.masks.square().mean() + layer.classes.square().mean() for layer in said.sight.layers]
    (said.logits.square().mean() + said.sight.cells.square().mean() + sum(layers)).backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    # the coarsest level is only seen through the finer ones; a backbone may keep what its features do not need
    assert not [name for name in dead if not name.startswith("backbone.")]


def test_frames_of_a_wrong_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiples of 64 pixels high and wide, got 64×96"):
        tiny().look(torch.zeros(1, 1, 3, 64, 96))


def test_more_queries_than_cells_are_refused() -> None:
    with pytest.raises(ConfigError, match="20 queries need as many cells, the frames have 16"):
        peaks(torch.rand(1, 4, 4), 20)


def test_config_says_what_does_not_fit() -> None:
    with pytest.raises(ValidationError, match="multiple of heads"):
        InstanceAwareConfig(backbone="resnet50", categories=3, channels=32, heads=5)
    with pytest.raises(ValidationError, match="at most all 4 queries can be learnt"):
        InstanceAwareConfig(backbone="resnet50", categories=3, queries=4, learnt=5)


def test_peaks_are_local_maxima_first() -> None:
    strength = torch.tensor([[[0.9, 0.8, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.3], [0.1, 0.0, 0.1, 0.1]]])
    assert peaks(strength, 3)[0, :2].tolist() == [0, 11]
    assert 1 in peaks(strength, 16)[0].tolist(), "then the others, the stronger first"


def test_an_empty_mask_hides_nothing() -> None:
    masks = torch.full((1, 2, 4, 4), -1.0)
    masks[0, 1, 0] = 1.0
    hidden = outside(masks, (4, 4))
    assert not hidden[0, 0].any()
    assert hidden[0, 1].sum() == 12
    assert not hidden[0, 1, :4].any()


def test_positions_say_where_at_any_size() -> None:
    one, twice = positions(torch.zeros(1, 16, 4, 4)), positions(torch.zeros(1, 16, 8, 8))
    assert one.shape == (1, 16, 16)
    assert len(torch.unique(one[0], dim=0)) == 16, "no two positions are alike"
    coarse = twice[0].unflatten(0, (4, 2, 4, 2)).mean((1, 3)).flatten(0, 1)
    # the longest waves agree between the sizes
    slow = [0, 4, 8, 12]
    torch.testing.assert_close(one[0][:, slow], coarse[:, slow], atol=0.1, rtol=0)


def test_a_temperature_makes_names_less_sure_and_leaves_what_is_nothing_alone() -> None:
    classes = torch.randn(4, K + 1, generator=torch.Generator().manual_seed(1)) * 5
    p, warm = classes.softmax(-1), renamed(classes, 3.0).softmax(-1)
    torch.testing.assert_close(warm[:, -1], p[:, -1])
    torch.testing.assert_close(warm[:, :-1], (1 - p[:, -1:]) * (classes[:, :-1] / 3).softmax(-1))
    assert torch.equal(renamed(classes, 1.0), classes)
    net = tiny()
    frames, _ = clip(T=1)
    before = net.look(frames).proposals
    net.config = net.config.model_copy(update={"temperature": 3.0})
    after = net.look(frames).proposals
    assert torch.equal(after.masks, before.masks)
    torch.testing.assert_close(after.classes, renamed(before.classes, 3.0))


def test_known_names_multiply_the_learned_ones_and_leave_what_is_nothing_alone() -> None:
    stream = torch.Generator().manual_seed(2)
    classes, known = torch.randn(4, K + 1, generator=stream), torch.randn(4, K, generator=stream)
    p, joined = classes.softmax(-1), renamed(classes, 2.0, known, 0.5).softmax(-1)
    product = p[:, :-1].sqrt() * known.exp().sqrt()
    torch.testing.assert_close(joined[:, -1], p[:, -1])
    torch.testing.assert_close(joined[:, :-1], (1 - p[:, -1:]) * product / product.sum(-1, keepdim=True))


def test_the_known_names_reach_the_answer_with_the_weight_of_the_config() -> None:
    net = tiny()
    knowing = InstanceAwareNet(net.config.model_copy(update={"known": 0.0})).eval()
    knowing.load_state_dict(net.state_dict(), strict=False)
    assert knowing.known is not None
    knowing.known.table[:, :K] = torch.eye(K)
    frames, _ = clip(T=1)
    torch.testing.assert_close(knowing.look(frames).proposals.classes, net.look(frames).proposals.classes)
    knowing.config = knowing.config.model_copy(update={"known": 1.0})
    before, after = net.look(frames), knowing.look(frames)
    assert not torch.equal(before.proposals.classes, after.proposals.classes)
    torch.testing.assert_close(
        before.proposals.classes.softmax(-1)[..., -1], after.proposals.classes.softmax(-1)[..., -1]
    )
    assert torch.equal(before.layers[-2].classes, after.layers[-2].classes)
