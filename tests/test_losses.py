"""The losses against the figures of the published code, and against loops written from the formulas."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from parity.generate import figures, normal
from torch import Tensor

from avs_core import losses
from avs_core.errors import ConfigError

FIGURES = figures("losses_metrics.json")


@pytest.fixture(scope="module")
def logits() -> Tensor:
    return normal("logits", (10, 1, 32, 32))


@pytest.fixture(scope="module")
def target() -> Tensor:
    gt = (normal("gt", (10, 1, 32, 32)) > 0.3).float()
    gt[[3, 7]] = 0
    return gt


@pytest.fixture(scope="module")
def visual() -> list[Tensor]:
    return [normal(f"z{i}", (10, 256, s, s)) for i, s in enumerate((8, 4, 2, 1))]


@pytest.fixture(scope="module")
def audio() -> list[Tensor]:
    return [normal(f"a{i}", (2, 5, 256)) for i in range(4)]


def published(name: str) -> object:
    return pytest.approx(FIGURES[name], rel=1e-4)


def test_bce_equals_the_published_figures(logits: Tensor, target: Tensor) -> None:
    assert float(losses.bce_ms3(logits, target)) == published("bce_ms3")
    assert float(losses.bce_s4(logits, target[::5])) == published("bce_s4_first_frame")


def test_avm_equals_the_published_figures(logits: Tensor, visual: list[Tensor], audio: list[Tensor]) -> None:
    av, vv = losses.avm_av, losses.avm_vv
    assert float(av(logits, visual, audio)) == published("avm_av_kl_stages0123_avg_nonorm")
    assert float(av(logits, visual, audio, stages=(2, 3))) == published("avm_av_kl_stages23_avg_nonorm")
    assert float(av(logits, visual, audio, normalise=True)) == published("avm_av_kl_stages0123_avg_normalised")
    assert float(vv(logits, visual, audio, normalise=True)) == published("avm_vv_kl_stages0123_avg_normalised")


def test_unnormalised_vv_is_zero_because_each_frame_is_its_own_nearest(
    logits: Tensor, visual: list[Tensor], audio: list[Tensor]
) -> None:
    # The published figure, 2e-10, is the rounding of a KL between equal distributions.
    assert float(losses.avm_vv(logits, visual, audio)) == pytest.approx(0, abs=1e-6)


def test_total_equals_the_published_figure(
    logits: Tensor, target: Tensor, visual: list[Tensor], audio: list[Tensor]
) -> None:
    assert float(losses.ms3_loss(logits, target, visual, audio)) == published("total_ms3_lambda0.5")
    assert float(losses.ms3_loss(logits, target, visual, audio, weight=0)) == published("bce_ms3")


def test_clip_shapes_give_the_same_losses(
    logits: Tensor, target: Tensor, visual: list[Tensor], audio: list[Tensor]
) -> None:
    clips, masks = logits.view(2, 5, 32, 32), target.view(2, 5, 32, 32)
    maps = [z.unflatten(0, (2, 5)) for z in visual]
    assert torch.equal(losses.bce_ms3(clips, masks), losses.bce_ms3(logits, target))
    for first in (masks[:, 0], masks[:, :1], masks[:, :1, None], masks, masks.bool(), masks.to(torch.uint8)):
        assert float(losses.bce_s4(clips, first)) == published("bce_s4_first_frame")
    for loss in (losses.avm_av, losses.avm_vv):
        assert torch.equal(loss(clips, maps, audio), loss(logits, visual, [a.flatten(0, 1) for a in audio]))


def test_av_equals_a_loop_over_frames_and_channels() -> None:
    logits, Z, a = normal("l", (3, 4, 4)), normal("Z", (3, 6, 2, 2)).relu(), normal("a", (3, 6))
    expected = 0.0
    for n in range(3):
        m = torch.tensor(
            [[logits[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean().sigmoid() for j in (0, 1)] for i in (0, 1)]
        )
        v = torch.stack([(Z[n, c] * m).sum() / 4 for c in range(6)])
        for p, q in zip(a[n].softmax(0).tolist(), v.softmax(0).tolist(), strict=True):
            expected += p * math.log(p / q)
    assert float(losses.avm_av(logits, [Z], [a])) == pytest.approx(expected, rel=1e-5)


def test_vv_pairs_the_frames_that_sound_alike() -> None:
    logits, Z = torch.zeros(3, 2, 2), torch.zeros(3, 2, 1, 1)
    Z[:, 0, 0, 0] = torch.tensor([0.0, 2.0, 10.0])
    a = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.2]])  # 0 and 1 are neighbours; 2 is nearest to 0
    v = (Z[:, :, 0, 0] / 2).softmax(1)

    def kl(p: Tensor, q: Tensor) -> float:
        return float((p * (p / q).log()).sum())

    expected = kl(v[1], v[0]) + kl(v[0], v[1]) + kl(v[0], v[2])
    assert float(losses.avm_vv(logits, [Z], [a])) == pytest.approx(expected, rel=1e-5)


def test_stages_that_do_not_hear_are_left_out_or_refused(
    logits: Tensor, visual: list[Tensor], audio: list[Tensor]
) -> None:
    deaf_below: list[Tensor | None] = [None, None, *audio[2:]]
    assert float(losses.avm_av(logits, visual, deaf_below)) == published("avm_av_kl_stages23_avg_nonorm")
    with pytest.raises(ConfigError, match="stage 1 of this net doesn't hear"):
        losses.avm_av(logits, visual, deaf_below, stages=(1, 2))
    with pytest.raises(ConfigError, match="at least one stage"):
        losses.avm_av(logits, visual, [None] * 4)


def test_wrong_shapes_are_refused(logits: Tensor, target: Tensor) -> None:
    with pytest.raises(ConfigError, match="one mask a frame"):
        losses.bce_ms3(logits, target[:5])
    with pytest.raises(ConfigError, match="not whole clips of 5"):
        losses.bce_s4(logits[:8], target[:2])


def test_gradients_stay_finite_on_saturated_logits() -> None:
    logits = torch.full((1, 5, 4, 4), 200.0, requires_grad=True)
    losses.bce_s4(logits, torch.zeros(1, 4, 4)).backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert float(logits.grad[0, 1:].abs().sum()) == 0


@pytest.mark.parametrize("size", [(8, 16), (4, 2), (1, 1), (3, 5)])
def test_means_of_cells_and_their_gradient_are_those_of_adaptive_pooling(size: tuple[int, int]) -> None:
    masks = normal("masks", (2, 3, 8, 16))
    weights = normal("weights", (2, 3, *size))
    (ours, slope), (theirs, wanted) = (
        slope_of(lambda x, pool=pool: (pool(x, size) * weights).sum(), masks)
        for pool in (losses.cell_means, F.adaptive_avg_pool2d)
    )
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(slope, wanted)
    assert losses.cell_means(masks, size).shape == (2, 3, *size)


def test_cross_entropy_of_pixels_and_its_gradient_are_those_of_maps() -> None:
    logits = normal("classes", (3, 7, 4, 6))
    labels = torch.randint(0, 7, (3, 4, 6), generator=torch.Generator().manual_seed(0))
    (ours, slope), (theirs, wanted) = (
        slope_of(lambda x, loss=loss: loss(x, labels), logits) for loss in (losses.pixel_cross_entropy, F.cross_entropy)
    )
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(slope, wanted)
    assert bool(torch.isnan(losses.pixel_cross_entropy(logits[:0], labels[:0]))), "a batch without a label stops a run"


def slope_of(function: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    x = at.clone().requires_grad_()
    value = function(x)
    (slope,) = torch.autograd.grad(value, x)
    return value.detach(), slope
