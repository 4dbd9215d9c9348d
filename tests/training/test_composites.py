"""A whole recipe, tiny: trains, resumes, and ships a bundle whose figures are those of what it ships."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avs_core.datasets.sources import Sources
from avs_core.models.bundle import load_bundle
from avs_core.training.card import figures
from avs_core.training.composites import Recipe, held_out, load_trained, new_trainee, train_recipe
from avs_core.training.data import StreamConfig
from avs_core.training.loop import LoopConfig
from avs_core.training.network import Objective
from tests.training.conftest import TINY_NET

RECIPE = Recipe(
    name="tiny",
    about="A test",
    net=TINY_NET,
    stream=StreamConfig(size=32, clips=1, frames=2),
    sound_stream=StreamConfig(size=16, clips=1, frames=2),
    sound=LoopConfig(steps=2),
    joint=LoopConfig(steps=3, checkpoint_every=2),
    objective=Objective(),
    bundle_size=32,
    val_clips=2,
    test_clips=2,
)


@pytest.fixture(scope="module")
def trained(tiny_sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    assert train_recipe(RECIPE, tiny_sources, out, threads=1, workers=0) == out / "bundle"
    return out


def test_the_bundle_loads_and_its_figures_are_its_own(trained: Path, tiny_sources: Sources) -> None:
    bundle = load_bundle(trained / "bundle")
    assert bundle.config.tpavi == RECIPE.net
    found = held_out(bundle, tiny_sources, "test", RECIPE.test_clips)
    assert bundle.config.metrics == figures(found, bundle.config.threshold)
    val = held_out(bundle, tiny_sources, "val", RECIPE.val_clips)
    assert bundle.config.threshold == val.best_threshold()


def test_the_card_says_how_it_was_made_and_measured(trained: Path) -> None:
    text, config = (trained / "bundle/card.md").read_text(), load_bundle(trained / "bundle").config
    assert "python -m jobs.train tiny" in text
    assert "3 steps of 1 clips × 2 frames at 32 pixels" in text
    assert f"| miou | {config.metrics['miou']:g} |" in text
    assert config.limits in text


def test_a_finished_run_is_not_trained_again_and_gives_the_same_bytes(trained: Path, tiny_sources: Sources) -> None:
    before = {path.name: path.read_bytes() for path in (trained / "bundle").iterdir()}
    train_recipe(RECIPE, tiny_sources, trained, threads=1, workers=0)
    assert {path.name: path.read_bytes() for path in (trained / "bundle").iterdir()} == before


def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    trained: Path, tiny_sources: Sources, tmp_path: Path
) -> None:
    weights = load_bundle(trained / "bundle").weights_sha256
    shas = []
    for seed in (0, 1):
        recipe = replace(RECIPE, seed=seed, val_clips=1, test_clips=1)
        shas.append(load_bundle(train_recipe(recipe, tiny_sources, tmp_path / str(seed), 1, workers=0)).weights_sha256)
    assert shas[0] == weights != shas[1]


def test_nothing_is_lost_on_the_way_into_the_bundle(trained: Path, tiny_sources: Sources) -> None:
    trainee, bundle = load_trained(RECIPE, tiny_sources, trained), load_bundle(trained / "bundle")
    for ours, shipped in ((trainee.net, bundle.net), (trainee.audio_encoder, bundle.audio_encoder)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, shipped.state_dict()[name]), name


def test_a_new_trainee_sees_like_imagenet(tiny_sources: Sources) -> None:
    one, other = (new_trainee(RECIPE, tiny_sources) for _ in range(2))
    stem = "net.backbone.body.conv_stem.weight"
    assert one.state_dict()[stem].equal(other.state_dict()[stem])
    assert not one.namer.weight.equal(other.namer.weight)
