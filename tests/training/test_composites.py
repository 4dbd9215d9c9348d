"""A whole run of ours, tiny: trains, resumes, and ships a bundle whose figures are those of what it ships."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avs_core import storage
from avs_core.datasets.composed import ComposedSet
from avs_core.datasets.sources import Sources
from avs_core.models.bundle import load_bundle
from avs_core.recipes import LIGHT
from avs_core.tracking import NullRun
from avs_core.training.card import figures
from avs_core.training.engine import Alone
from avs_core.training.held_out import HeldOut
from avs_core.training.loop import load_weights
from avs_core.training.materials import Materials
from avs_core.training.network import Normalisation, TPAVITrainee
from avs_core.training.train import Trained, train
from tests.training.conftest import TINY_NET

RECIPE = replace(
    LIGHT,
    name="tiny",
    about="A test",
    net=TINY_NET,
    stream=replace(LIGHT.stream, size=32, clips=1),
    sound_stream=replace(LIGHT.sound_stream, clips=1),
    sound=LIGHT.sound.model_copy(update={"steps": 2}),
    joint=LIGHT.joint.model_copy(update={"steps": 3, "checkpoint_every": 2}),
    bundle_size=32,
    val_clips=2,
    test_clips=2,
)


def trained(sources: Sources, out: Path, seed: int = 0) -> Trained:
    weights, done = None, None
    for job in RECIPE.jobs(Materials(sources=sources, seed=seed, workers=0)):
        done = train(job, Alone("cpu"), str(out), NullRun(), out, weights)
        weights = done.weights
    assert done is not None
    return done


@pytest.fixture(scope="module")
def done(tiny_sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tiny_sources, tmp_path_factory.mktemp("trained"))


def test_the_bundle_loads_and_its_figures_are_its_own(done: Trained, tiny_sources: Sources) -> None:
    assert done.left is not None
    bundle = load_bundle(done.left)
    assert bundle.config.tpavi == RECIPE.net
    config = bundle.config
    shipped = TPAVITrainee(bundle.net, bundle.audio_encoder, Normalisation(config.mean, config.std), None).eval()
    data = ComposedSet(tiny_sources, {"val": RECIPE.val_clips, "test": RECIPE.test_clips}, config.window_s)
    held_out = HeldOut(data, config.size, config.alignment, config.window_s)
    assert config.metrics == figures(held_out.measure(shipped, "test"), config.threshold)
    assert config.threshold == held_out.measure(shipped, "val").best_threshold()


def test_the_card_says_how_it_was_made_and_measured(done: Trained) -> None:
    assert done.left is not None
    text, config = (done.left / "card.md").read_text(), load_bundle(done.left).config
    assert "avs train tiny --out DIR" in text
    assert "3 steps of 1 clips × 2 frames at 32 pixels" in text
    assert f"| miou | {config.metrics['miou']:g} |" in text
    assert config.limits in text


def test_nothing_is_lost_on_the_way_into_the_bundle(done: Trained, tiny_sources: Sources) -> None:
    assert done.left is not None
    trainee, bundle = RECIPE.jobs(Materials(sources=tiny_sources))[1].model(), load_bundle(done.left)
    load_weights(trainee, storage.read_bytes(done.weights))
    for ours, shipped in ((trainee.net, bundle.net), (trainee.audio_encoder, bundle.audio_encoder)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, shipped.state_dict()[name]), name


def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    done: Trained, tiny_sources: Sources, tmp_path: Path
) -> None:
    assert done.left is not None
    shas = []
    for seed in (0, 1):
        again = trained(tiny_sources, tmp_path / str(seed), seed).left
        assert again is not None
        shas.append(load_bundle(again).weights_sha256)
    assert shas[0] == load_bundle(done.left).weights_sha256 != shas[1]


def test_a_new_trainee_sees_like_imagenet(tiny_sources: Sources) -> None:
    one, other = (RECIPE.jobs(Materials(sources=tiny_sources, seed=seed))[1].model() for seed in (0, 1))
    stem = "net.backbone.body.conv_stem.weight"
    assert one.state_dict()[stem].equal(other.state_dict()[stem])
    assert not one.namer.weight.equal(other.namer.weight)


def test_the_best_weights_are_those_of_validation(done: Trained) -> None:
    assert set(done.metrics) == {"miou"}
    assert done.step == 3
