"""Each setting's loss is its formula, and no loss looks at a second without a label."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avs_core.datasets.sources import Sources
from avs_core.errors import ConfigError
from avs_core.losses import avm_av, avm_semantic, avm_vv, bce_ms3, bce_s4, ms3_loss
from avs_core.models.tpavi import TPAVIOutput
from avs_core.training.data import Batch, CompositeBatches, StreamConfig
from avs_core.training.network import Answer
from avs_core.training.objectives import (
    Agreement,
    AVSSObjective,
    LightObjective,
    MS3Objective,
    S4Objective,
    naming_loss,
    soft_dice,
)

B, T, SIZE, C, K = 4, 5, 32, 6, 7
FIRST = torch.tensor([True, False, False, False, False]).expand(B, T)
ALL = torch.ones(B, T, dtype=torch.bool)


def answer(classes: int = 1) -> Answer:
    torch.manual_seed(1)
    shape = (B, T, SIZE, SIZE) if classes == 1 else (B, T, classes, SIZE, SIZE)
    visual = tuple(torch.rand(B, T, C, SIZE // s, SIZE // s) for s in (4, 8, 16, 32))
    return Answer(TPAVIOutput(torch.randn(shape), visual, tuple(torch.randn(B, T, C) for _ in range(4))))


def batch(labelled: Tensor, seed: int = 0) -> Batch:
    """Clips whose masks and labels depend on the seed where they are not labelled."""
    torch.manual_seed(2)
    masks, labels = torch.rand(B, T, SIZE, SIZE) > 0.5, torch.randint(0, K, (B, T, SIZE, SIZE))
    torch.manual_seed(seed)
    other = torch.rand(B, T, SIZE, SIZE) > 0.5
    masks = torch.where(labelled[..., None, None], masks, other)
    labels = torch.where(labelled[..., None, None], labels, other.long())
    frames = torch.zeros(B, T, SIZE, SIZE, 3, dtype=torch.uint8)
    return Batch(frames, torch.zeros(B, T, 1, 96, 64), masks, labelled, labels)


def total(terms: dict[str, Tensor]) -> float:
    return float(torch.stack(list(terms.values())).sum())


def test_s4_is_bce_of_the_first_frame() -> None:
    said, clips = answer(), batch(FIRST)
    terms = S4Objective()(said, clips)
    assert set(terms) == {"bce"}
    torch.testing.assert_close(terms["bce"], bce_s4(said.masks.logits, clips.masks))


@pytest.mark.parametrize(("variant", "oracle"), [("av", avm_av), ("vv", avm_vv)])
def test_ms3_is_the_published_sum(variant: str, oracle) -> None:  # type: ignore[no-untyped-def]  # a loss
    said, clips = answer(), batch(ALL)
    masks = said.masks
    terms = MS3Objective(Agreement(variant))(said, clips)
    torch.testing.assert_close(terms["bce"], bce_ms3(masks.logits, clips.masks))
    torch.testing.assert_close(terms["avm"], 0.5 * oracle(masks.logits, masks.visual, masks.audio))
    whole = ms3_loss(masks.logits, clips.masks, masks.visual, masks.audio, variant=variant)
    assert total(terms) == pytest.approx(float(whole), rel=1e-5)


def test_avm_vv_alone_pairs_the_clips_of_a_batch() -> None:
    av, vv = Agreement("av"), Agreement("vv")
    assert [MS3Objective(av).crosses, LightObjective(agreement=av).crosses] == [False, False]
    assert [MS3Objective(vv).crosses, LightObjective(agreement=vv).crosses] == [True, True]
    assert not any(one.crosses for one in (S4Objective(), AVSSObjective(), LightObjective()))


def test_the_published_sum_is_the_mean_over_processes_that_share_a_batch() -> None:
    masks = answer().masks
    whole = Agreement()(masks)
    shares = [
        Agreement()(
            TPAVIOutput(
                masks.logits[own],
                tuple(Z[own] for Z in masks.visual),
                tuple(a[own] for a in masks.audio if a is not None),
            )
        )
        for own in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(torch.stack(shares).mean(), whole)


def test_avss_is_cross_entropy_and_its_own_avm() -> None:
    said, clips = answer(K), batch(FIRST)
    logits, labels = said.masks.logits, clips.labels
    assert labels is not None
    terms = AVSSObjective()(said, clips)
    # as the published code writes it: per frame, weighted by a flag, over the number of flags
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1), reduction="none").mean((-1, -2))
    flag = FIRST.flatten().float()
    torch.testing.assert_close(terms["ce"], (each * flag).sum() / flag.sum())
    avm = avm_semantic(logits, said.masks.visual, said.masks.audio, FIRST)
    torch.testing.assert_close(terms["avm"], 0.5 * avm)


def test_semantic_avm_against_a_loop() -> None:
    masks = answer(K).masks
    values = []
    for Z, a in zip(masks.visual, masks.audio, strict=True):
        for b in range(B):
            m = F.adaptive_avg_pool2d((masks.logits[b, 0].argmax(0) != 0).float()[None], Z.shape[-2:])
            v = (Z[b, 0] * m).mean((1, 2)).softmax(0)
            p = a[b, 0].softmax(0)
            values.append(float((p * (p / v).log()).sum()))
    found = avm_semantic(masks.logits, masks.visual, masks.audio, FIRST)
    assert float(found) == pytest.approx(np.mean(values), rel=1e-5)


@pytest.mark.parametrize("objective", [S4Objective(), MS3Objective(), LightObjective(), AVSSObjective()])
def test_unlabelled_seconds_enter_no_loss(objective) -> None:  # type: ignore[no-untyped-def]  # an Objective
    said = answer(K if isinstance(objective, AVSSObjective) else 1)
    one, other, labelled = batch(FIRST, 0), batch(FIRST, 5), batch(ALL)
    assert not torch.equal(one.masks, other.masks)
    assert total(objective(said, one)) == total(objective(said, other))
    assert total(objective(said, one)) != total(objective(said, labelled))


def test_avss_needs_classes() -> None:
    with pytest.raises(ConfigError, match="needs classes"):
        AVSSObjective()(answer(K), replace(batch(ALL), labels=None))
    with pytest.raises(ConfigError, match="needs classes"):
        AVSSObjective()(answer(), batch(ALL))


def test_light_says_what_its_terms_are() -> None:
    said, clips = answer(), batch(ALL)
    assert set(LightObjective()(said, clips)) == {"bce", "dice"}
    assert set(LightObjective(agreement=Agreement())(said, clips)) == {"bce", "dice", "avm"}


def test_soft_dice_against_a_loop(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.standard_normal((2, 2, 5, 5)))
    target = torch.from_numpy((rng.random((2, 2, 5, 5)) > 0.6).astype(float))
    target[1, 1] = 0
    terms = []
    for b, t in ((0, 0), (0, 1), (1, 0)):
        p, y = 1 / (1 + np.exp(-logits[b, t].numpy())), target[b, t].numpy()
        terms.append(1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
    assert float(soft_dice(logits, target)) == pytest.approx(np.mean(terms))


def test_soft_dice_of_silence_is_zero() -> None:
    assert float(soft_dice(torch.zeros(2, 4, 4), torch.zeros(2, 4, 4))) == 0.0


def test_naming_loss_against_a_loop(rng: np.random.Generator, tiny_sources: Sources) -> None:
    clips = CompositeBatches(tiny_sources, "train", StreamConfig(size=32, clips=2), 9)[0]
    assert clips.heard is not None
    named = torch.from_numpy(rng.standard_normal(clips.heard.shape).astype(np.float32))
    heard = clips.heard.numpy()
    p = 1 / (1 + np.exp(-named.numpy()))
    wanted = np.where(heard, -np.log(p), -np.log(1 - p)).sum(-1).mean()
    assert float(naming_loss(named, clips)) == pytest.approx(float(wanted), rel=1e-5)


def test_of_what_may_be_heard_or_not_nothing_is_asked(rng: np.random.Generator) -> None:
    told, unsure = torch.from_numpy(rng.random((2, B, T, K)) < 0.3)
    named = torch.from_numpy(rng.standard_normal((B, T, K)).astype(np.float32))
    p = 1 / (1 + np.exp(-named.numpy()))
    each = np.where(told.numpy(), -np.log(p), -np.log(1 - p)) * ~unsure.numpy()
    loss = naming_loss(named, replace(batch(ALL), heard=told, unsure=unsure))
    assert float(loss) == pytest.approx(float(each.sum(-1).mean()), rel=1e-5)


def test_naming_needs_to_know_what_is_heard() -> None:
    with pytest.raises(ConfigError, match="does not say"):
        naming_loss(torch.zeros(B, T, K), batch(ALL))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
