"""The figures of answers that are known beforehand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from avs_core.datasets.composites import Composer, ComposerConfig
from avs_core.datasets.sources import Sources
from avs_core.metrics import FrameScores
from avs_core.models.bundle import BundleConfig, load_bundle, save_bundle
from avs_core.training.evaluation import THRESHOLDS, Tally, bundle_predict, evaluate
from avs_core.training.network import Trainee
from tests.training.conftest import TINY_NET

SEEDS = range(5)


@pytest.fixture
def composer(tiny_sources: Sources) -> Composer:
    return Composer(tiny_sources, "test", ComposerConfig(size=32, seconds=3))


def eye(frames: Tensor, log_mel: Tensor) -> Tensor:
    """Lights what is strongly coloured, whatever is heard."""
    spread = frames.amax(-1).float() - frames.amin(-1).float()
    return (spread - 60) / 10


def test_an_answer_that_only_looks_scores_the_same_under_every_sound(composer: Composer) -> None:
    found = evaluate(eye, composer, SEEDS, window_s=3)
    assert found.clips == 5
    assert found.own.ious == found.hushed.ious == found.foreign.ious
    assert found.own.lit == found.foreign.lit


def test_own_figures_are_those_of_the_metrics(composer: Composer) -> None:
    found, scores = evaluate(eye, composer, SEEDS, window_s=3), FrameScores()
    for clip in map(composer.compose, SEEDS):
        frames = torch.from_numpy(clip.frames)
        scores.update(eye(frames, frames), torch.from_numpy(clip.masks))
    assert found.own.miou(0.5) == pytest.approx(scores.compute().miou)
    assert found.fscore == pytest.approx(scores.compute().fscore)
    assert sum(found.own.sounding) == scores.compute().sounding


def test_an_empty_answer_scores_the_dark_share_of_silent_frames(composer: Composer) -> None:
    found = evaluate(eye, composer, SEEDS, window_s=3)
    masks = np.concatenate([composer.compose(seed).masks for seed in SEEDS])
    silent = ~masks.any((1, 2))
    assert found.empty.miou(0.5) == pytest.approx(silent.mean(), abs=1e-6)
    assert found.empty.miou_sounding(0.5) == 0.0
    assert found.empty.lit_share(0.5) == 0.0


def test_each_sound_reaches_the_answer_and_windows_cut_it(composer: Composer) -> None:
    heard: list[Tensor] = []

    def listen(frames: Tensor, log_mel: Tensor) -> Tensor:
        assert frames.shape[1] == log_mel.shape[1]
        heard.append(log_mel)
        return torch.zeros(frames.shape[:-1])

    evaluate(listen, composer, range(1), window_s=2)
    assert [x.shape[1] for x in heard] == [2, 1] * 3
    own, hushed, foreign = heard[0], heard[2], heard[4]
    assert not torch.equal(own, foreign)
    assert hushed.mean() < own.mean()


def test_the_threshold_of_the_highest_miou_is_chosen() -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.bool)
    target[0, :2] = True
    probability = torch.full((1, 4, 4), 0.58)
    probability[0, :2] = 0.9
    tally = Tally()
    tally.add(torch.logit(probability), target)
    best = [threshold for threshold in THRESHOLDS if threshold > 0.58]
    assert [threshold for threshold in THRESHOLDS if tally.miou(threshold) > 0.99] == best
    assert tally.miou(0.5) == pytest.approx(0.5)
    assert tally.lit_share(0.5) == 1.0
    assert tally.lit_share(0.6) == 0.5


def test_a_bundle_answers_what_its_nets_answer(trainee: Trainee, tmp_path, composer: Composer) -> None:  # type: ignore[no-untyped-def]  # pytest's path
    normalise = trainee.normalise
    config = BundleConfig(
        name="x", tpavi=TINY_NET, audio_encoder="audio_cnn", mean=normalise.mean, std=normalise.std, size=32
    )
    save_bundle(tmp_path, config, trainee.net, trainee.audio_encoder, "card")
    clip = composer.compose(0)
    frames, log_mel = torch.from_numpy(clip.frames)[None], torch.randn(1, 3, 1, 96, 64)
    with torch.inference_mode():
        wanted = trainee.eval()(frames, log_mel).masks.logits
        torch.testing.assert_close(bundle_predict(load_bundle(tmp_path))(frames, log_mel), wanted)
