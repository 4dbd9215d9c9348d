"""Audio clusters, and how far visual features follow them."""

from pathlib import Path

import numpy as np
import pytest

from avs_core.evaluation.clusters import Features, agreement, audio_clusters, cluster_figure, features
from tests.evaluation.bundles import tiny_bundle
from tests.evaluation.worlds import SECONDS, World

SOUNDS = np.random.default_rng(0).normal(0, 10, (20, 128)).astype(np.float32)
KINDS = np.repeat(np.arange(20), 6)
AUDIO = SOUNDS[KINDS] + np.random.default_rng(1).normal(0, 0.1, (120, 128)).astype(np.float32)


def test_sounds_of_a_kind_are_one_cluster() -> None:
    clusters = audio_clusters(AUDIO, seed=0)
    assert len(set(zip(KINDS.tolist(), clusters.tolist(), strict=True))) == len(set(clusters.tolist())) == 20


@pytest.mark.parametrize(("follows", "wanted"), [(True, 1.0), (False, 5 / 119)])
def test_agreement_is_1_where_sight_follows_sound_and_chance_where_it_does_not(follows: bool, wanted: float) -> None:
    visual = AUDIO if follows else np.random.default_rng(2).normal(size=(120, 16)).astype(np.float32)
    found = Features(visual, AUDIO, np.arange(120))
    assert agreement(found, audio_clusters(AUDIO, 0)) == pytest.approx(wanted, abs=0.04)
    assert agreement(found, audio_clusters(AUDIO, 0), nearest_only=False) == pytest.approx(5 / 119)


def test_neighbours_of_the_same_clip_do_not_count() -> None:
    """Six seconds of one clip look and sound alike: that says nothing."""
    found = Features(AUDIO, AUDIO, KINDS.astype(np.int64))
    assert agreement(found, audio_clusters(AUDIO, 0)) == 0


def test_features_are_those_of_each_second_and_deaf_ones_do_not_depend_on_the_sound(tmp_path: Path) -> None:
    bundle, world = tiny_bundle(tmp_path), World()
    clips = [world.load(ref, 64) for ref in world.clips("test")]
    hearing, deaf = features(bundle, clips), features(bundle, clips, deaf=True)
    assert hearing.visual.shape == deaf.visual.shape == (len(clips) * SECONDS, 8)
    assert np.array_equal(hearing.audio, deaf.audio)
    assert hearing.clip[: 3 * SECONDS].tolist() == np.repeat(range(3), SECONDS).tolist()
    assert np.allclose(deaf.visual[0], deaf.visual[1], atol=1e-5)
    figure = cluster_figure([("with", hearing), ("without", deaf)])
    assert figure is not None
    assert len(figure.axes) == 2
