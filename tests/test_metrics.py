"""The metrics against the figures of the published code, naive loops and scikit-learn."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity.generate import figures, normal
from sklearn.metrics import fbeta_score
from torch import Tensor

from avs_core import metrics
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


def test_official_miou_is_bit_compatible(logits: Tensor, target: Tensor) -> None:
    assert metrics.official_miou(logits, target) == FIGURES["miou_batch_of_10_frames"]
    assert metrics.official_miou(logits[:5], torch.zeros(5, 1, 32, 32)) == FIGURES["miou_all_empty_gt"]


def test_official_fscore_is_bit_compatible(logits: Tensor, target: Tensor) -> None:
    assert metrics.official_fscore(logits, target) == FIGURES["fmax_batch_of_10_frames"]
    halves = [metrics.official_fscore(logits[half], target[half]) for half in (slice(0, 5), slice(5, 10))]
    assert halves == FIGURES["fmax_per_5_frames"]


@pytest.mark.parametrize("shape", [(10, 32, 32), (2, 5, 32, 32), (10, 1, 32, 32)])
def test_every_layout_gives_the_same(logits: Tensor, target: Tensor, shape: tuple[int, ...]) -> None:
    predicted, wanted = logits.view(shape), target.view(shape).bool()
    assert metrics.official_miou(predicted, wanted) == FIGURES["miou_batch_of_10_frames"]
    assert metrics.official_fscore(predicted, wanted) == FIGURES["fmax_batch_of_10_frames"]


def test_fscore_equals_a_loop_over_thresholds(logits: Tensor, target: Tensor) -> None:
    total, counted = torch.zeros(255), 0
    for p, y in zip(logits[:, 0].sigmoid(), target[:, 0], strict=True):
        if not y.any():
            continue
        counted += 1
        for i, threshold in enumerate(torch.linspace(0, 1 - 1e-10, 255)):
            on = (p >= threshold).float()
            precision, recall = (on * y).sum() / (on.sum() + 1e-20), (on * y).sum() / (y.sum() + 1e-20)
            f = 1.3 * precision * recall / (0.3 * precision + recall)
            total[i] += 0 if f.isnan() else f
    assert metrics.official_fscore(logits, target) == pytest.approx(float((total / counted).max()), abs=1e-7)


def test_an_empty_batch_of_targets_scores_zero_f(logits: Tensor) -> None:
    assert metrics.official_fscore(logits, torch.zeros(10, 1, 32, 32)) == 0.0


def test_official_scores_are_the_mean_over_batches(logits: Tensor, target: Tensor) -> None:
    scores = metrics.OfficialScores()
    for half in (slice(0, 5), slice(5, 10)):
        scores.update(logits[half], target[half])
    found = scores.compute()
    assert found.fscore == pytest.approx(sum(FIGURES["fmax_per_5_frames"]) / 2, rel=1e-9)
    assert (found.frames, found.sounding, found.fscore_at) == (10, 8, None)


@given(cuts=st.sets(st.integers(1, 9), max_size=4))
def test_frame_scores_do_not_depend_on_batches(cuts: set[int]) -> None:
    logits, target = normal("logits", (10, 32, 32)), normal("gt", (10, 32, 32)) > 0.3
    target[[3, 7]] = False
    whole, split = metrics.FrameScores(), metrics.FrameScores()
    whole.update(logits, target)
    edges = [0, *sorted(cuts), 10]
    for start, stop in pairwise(edges):
        split.update(logits[start:stop], target[start:stop])
    a, b = whole.compute(), split.compute()
    assert (a.frames, a.sounding) == (b.frames, b.sounding) == (10, 8)
    assert (a.miou, a.fscore, a.fscore_at) == pytest.approx((b.miou, b.fscore, b.fscore_at), rel=1e-12)


def test_fixed_threshold_f_equals_scikit_learn(logits: Tensor, target: Tensor) -> None:
    scores = metrics.FrameScores()
    scores.update(logits, target)
    expected = [
        fbeta_score(y.flatten() > 0, p.flatten() > 0.5, beta=metrics.BETA2**0.5)
        for p, y in zip(logits.sigmoid(), target, strict=True)
        if y.any()
    ]
    assert scores.compute().fscore_at == pytest.approx(sum(expected) / len(expected), rel=1e-9)


def test_a_perfect_prediction_scores_one() -> None:
    target = torch.zeros(2, 8, 8)
    target[0, :4] = 1
    scores = metrics.FrameScores()
    scores.update(20 * target - 10, target)
    found = scores.compute()
    assert (found.miou, found.fscore, found.fscore_at) == pytest.approx((1, 1, 1), abs=1e-6)


def test_nothing_to_score_is_an_error(logits: Tensor, target: Tensor) -> None:
    for empty in (metrics.FrameScores(), metrics.OfficialScores()):
        with pytest.raises(ConfigError, match="the split is empty"):
            empty.compute()
    with pytest.raises(ConfigError, match="one mask a frame"):
        metrics.official_miou(logits, target[:3])
