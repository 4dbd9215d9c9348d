"""Learning what is more than noise: from recordings and noise, for sounds and noises of another kind."""

import numpy as np
import pytest
import torch

from avs_core.audio import LOG_MEL
from avs_core.clip import AUDIO_RATE
from avs_core.datasets.composites import Composer, ComposerConfig
from avs_core.datasets.sources import Sources
from avs_core.evaluation.sounds import pink
from avs_core.models.activity import Activity
from avs_core.training.activity import SECONDS, TAKES, Take, fit_activity, takes
from avs_core.training.swaps import some_voice


class Bands(torch.nn.Module):
    """A log-mel example as it is, averaged over its time."""

    def forward(self, examples: torch.Tensor) -> torch.Tensor:
        return examples.mean((1, 2))


@pytest.fixture(scope="module")
def sounds(tiny_sources: Sources) -> list[Take]:
    return list(takes(tiny_sources, LOG_MEL))


@pytest.fixture(scope="module")
def fitted(sounds: list[Take]) -> Activity:
    found = fit_activity(Bands(), sounds)
    assert found is not None
    return found


def test_each_recording_comes_as_often_with_pauses_and_noise_among_them(
    sounds: list[Take], tiny_sources: Sources
) -> None:
    recordings = sum(len(tiny_sources.sounds("train", kind)) for kind in tiny_sources.categories)
    active = [told for _, told in sounds if told.any()]
    assert len(active) == TAKES * recordings
    assert 0.15 < (len(sounds) - len(active)) / len(active) < 0.6
    assert any(not told.all() for told in active)
    assert all(examples.shape[0] == len(told) == SECONDS for examples, told in sounds)


def test_it_tells_sounds_of_other_recordings_from_another_noise(fitted: Activity, tiny_sources: Sources) -> None:
    composer = Composer(tiny_sources, "test", ComposerConfig(size=16, seconds=SECONDS))
    rng = np.random.default_rng(5)
    heard, silent = [], []
    for kind in tiny_sources.categories:
        for ref in tiny_sources.sounds("test", kind):
            waveform, sounding = composer.voice(some_voice(kind, ref, (0.0, float(SECONDS)), rng), rng)
            heard.append(fitted(Bands()(LOG_MEL.examples(waveform, SECONDS)))[torch.from_numpy(sounding)])
            other = pink(SECONDS * AUDIO_RATE, rng)
            noise = (0.05 * other / other.std()).astype(np.float32)
            silent.append(fitted(Bands()(LOG_MEL.examples(noise, SECONDS))))
    assert float((torch.cat(heard) > 0.5).float().mean()) > 0.9
    assert float((torch.cat(silent) < 0.5).float().mean()) > 0.9


def test_the_same_seed_gives_the_same(fitted: Activity, tiny_sources: Sources) -> None:
    again = fit_activity(Bands(), takes(tiny_sources, LOG_MEL))
    assert again is not None
    assert torch.equal(again.score.weight, fitted.score.weight)
    other = fit_activity(Bands(), takes(tiny_sources, LOG_MEL, seed=1))
    assert other is not None
    assert not torch.equal(other.score.weight, fitted.score.weight)


def test_one_kind_of_seconds_alone_fits_nothing(sounds: list[Take]) -> None:
    assert fit_activity(Bands(), [one for one in sounds if one[1].all()]) is None
    assert fit_activity(Bands(), [one for one in sounds if not one[1].any()]) is None
    assert fit_activity(Bands(), []) is None
