"""The instance-aware model on tiny trees in AVSBench's layouts: what its stages are given, move and leave."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avs_core.datasets.labelled import Setting
from avs_core.datasets.opening import open_dataset
from avs_core.datasets.regions import RegionSet
from avs_core.datasets.sources import Sources
from avs_core.errors import CheckpointMismatch, ConfigError
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import BundleConfig, load_bundle, save_bundle
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareNet
from avs_core.models.tpavi import TPAVINet
from avs_core.models.vggish import VGGish
from avs_core.query_losses import UNNAMED
from avs_core.recipes import INSTANCES_AVSBENCH, INSTANCES_FULL, find_recipe
from avs_core.tracking import NullRun
from avs_core.training.engine import Alone
from avs_core.training.initialise import LITE0, lite0_classifier
from avs_core.training.instance_published import AvsBenchInstanceRecipe, continued
from avs_core.training.instance_recipe import InstanceRecipe
from avs_core.training.instances import InstanceTrainee, Stage
from avs_core.training.materials import Materials
from avs_core.training.published import PUBLISHED_INPUT
from avs_core.training.recipe_job import RecipeJob
from avs_core.training.train import Trained, train
from tests.avsbench_fixtures import CATEGORIES, CLASSES, write_avss, write_ms3, write_s4
from tests.test_recipes import told
from tests.training.conftest import TINY_NET

WRITERS = {"s4": write_s4, "ms3": write_ms3, "avss": write_avss}
TINY = InstanceAwareConfig(
    backbone="tf_efficientnet_lite0", categories=1, queries=6, learnt=1, channels=16, heads=2, layers=1, hidden=8
)


def small(recipe: AvsBenchInstanceRecipe) -> AvsBenchInstanceRecipe:
    """The recipe's own stages and objectives; a net and pictures that fit into a test."""
    return replace(recipe, net=TINY, feed=replace(recipe.feed, size=64, clips=3))


def found(name: str) -> AvsBenchInstanceRecipe:
    recipe = find_recipe(name)
    assert isinstance(recipe, AvsBenchInstanceRecipe)
    return recipe


def opened(setting: Setting, folder: Path) -> Any:
    return open_dataset(str(WRITERS[setting](folder)), setting)


def stand_in(categories: int, stage: Stage) -> InstanceTrainee:
    torch.manual_seed(0)
    net = InstanceAwareNet(TINY.model_copy(update={"categories": categories}))
    return InstanceTrainee(net, AudioCNN(), PUBLISHED_INPUT, stage, learned=True, tuned=True)


def test_backbones_and_settings() -> None:
    assert {(one.setting, one.net.backbone) for one in INSTANCES_AVSBENCH} == {
        *((setting, net) for setting in ("s4", "ms3") for net in BACKBONES),
        ("avss", "pvt_v2_b5"),
    }
    for recipe in INSTANCES_AVSBENCH:
        BundleConfig(name="x", arch="instance_aware", instance_aware=recipe.net, audio_encoder="vggish")
    assert INSTANCES_FULL.net.backbone == "pvt_v2_b5"


STAGES: tuple[Stage, Stage] = ("sight", "correlation")
BACKBONES = ("resnet50", "pvt_v2_b5", "swin_base_patch4_window7_224")


@pytest.mark.parametrize(
    ("setting", "categories", "kinds"),
    [("s4", CATEGORIES, {0, 1}), ("ms3", ("something",), {0}), ("avss", CLASSES[1:], {0, 1, 2})],
)
def test_both_stages_step_on_tiny_trees(
    setting: Setting, categories: tuple[str, ...], kinds: set[int], tmp_path: Path
) -> None:
    recipe = small(next(one for one in INSTANCES_AVSBENCH if one.setting == setting))
    init, vggish = ("bundle", None) if setting == "ms3" else (None, "weights")
    materials = Materials(data=opened(setting, tmp_path), vggish=vggish, init=init, workers=0)
    sight, correlation = recipe.jobs(materials)
    for job, stage, epochs in ((sight, STAGES[0], recipe.sight), (correlation, STAGES[1], recipe.correlation)):
        assert isinstance(job, RecipeJob)
        pickle.dumps(job)
        # one second of each of three clips is a batch
        assert job.loop.steps == epochs
        trainee, batch = stand_in(len(categories), stage).train(), next(job.batches(0, 0, 1))
        assert batch.kinds is not None
        assert set(batch.kinds.flatten().tolist()) - {len(categories)} <= kinds
        terms = job.loss(trainee, batch)
        torch.stack(list(terms.values())).sum().backward()
        assert all(bool(torch.isfinite(term)) for term in terms.values())
        backbone = next(trainee.net.backbone.parameters()).grad
        assert (backbone is not None) == (stage == "sight")
    assert correlation.held_out is not None  # type: ignore[attr-defined]  # a RecipeJob
    assert isinstance(correlation.held_out.data, RegionSet)  # type: ignore[attr-defined]


def test_without_names_an_object_is_only_something(tmp_path: Path) -> None:
    """The loss of MS3's stage A is the same whatever an object is called, and has no object called nothing."""
    recipe = small(found("instances-ms3-r50"))
    sight, _ = recipe.jobs(Materials(data=opened("ms3", tmp_path), init="bundle", workers=0))
    trainee, batch = stand_in(4, "sight").eval(), next(sight.batches(0, 0, 1))
    assert batch.kinds is not None
    answer = trainee(batch.frames, batch.sound)
    objective = sight.objective  # type: ignore[attr-defined]  # a RecipeJob
    renamed = replace(batch, kinds=torch.full_like(batch.kinds, 3))
    for name, value in objective(answer, batch).items():
        torch.testing.assert_close(value, objective(answer, renamed)[name])
    assert UNNAMED not in batch.kinds
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            replace(objective, named=True)(answer, batch)["class"],
            replace(objective, named=True)(answer, renamed)["class"],
        )


@pytest.mark.parametrize(
    ("name", "materials", "match"),
    [
        ("instances-s4-pvt", {}, "give it data"),
        ("instances-s4-pvt", {"data": told("s4")}, "--vggish"),
        ("instances-s4-pvt", {"data": told("s4"), "vggish": "x", "init": "y"}, "takes no --init"),
        ("instances-s4-pvt", {"data": told("s4"), "vggish": "x", "audio": "y"}, "takes no --audio"),
        ("instances-s4-pvt", {"data": told("ms3"), "vggish": "x"}, "trains on s4 data; told is ms3"),
        ("instances-ms3-swin", {"data": told("ms3")}, "starts from an S4 run"),
        ("instances-ms3-swin", {"data": told("ms3"), "init": "x", "vggish": "y"}, "leave out --vggish"),
    ],
)
def test_missing_materials_are_asked_for_before_anything_runs(name: str, materials: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        find_recipe(name).jobs(Materials(**materials))


def test_a_bundle_of_another_net_is_no_start(tmp_path: Path) -> None:
    recipe = small(found("instances-ms3-r50"))
    save_bundle(
        tmp_path, BundleConfig(name="x", tpavi=TINY_NET, audio_encoder="audio_cnn"), TPAVINet(TINY_NET), AudioCNN(), ""
    )
    with pytest.raises(CheckpointMismatch, match="starts from an instance-aware bundle"):
        continued(recipe, str(tmp_path))
    config = BundleConfig(name="x", arch="instance_aware", instance_aware=TINY, audio_encoder="audio_cnn")
    save_bundle(tmp_path, config, InstanceAwareNet(TINY), AudioCNN(), "", ("a",))
    with pytest.raises(CheckpointMismatch, match="start from the S4 run"):
        continued(recipe, str(tmp_path))


def test_the_full_recipe_of_composites_looks_as_its_backbone_wants(tiny_sources: Sources, tmp_path: Path) -> None:
    torch.save(lite0_classifier().state_dict(), tmp_path / f"{LITE0}.pth")
    feed = replace(INSTANCES_FULL.seen, size=64, clips=2)
    recipe = replace(
        INSTANCES_FULL,
        net=TINY,
        audio_encoder="audio_cnn",
        seen=feed,
        heard=replace(INSTANCES_FULL.heard, size=64, clips=1),
        bundle_size=64,
        val_clips=2,
        test_clips=2,
    )
    materials = Materials(sources=tiny_sources, backbone=str(tmp_path / f"{LITE0}.pth"), steps=2, workers=0)
    done = trained(recipe, materials, tmp_path / "out")
    assert done.left is not None
    bundle = load_bundle(done.left)
    assert (bundle.config.mean, bundle.config.std) == (PUBLISHED_INPUT.mean, PUBLISHED_INPUT.std)
    assert f"Weights of the backbone: {materials.backbone}" in (done.left / "card.md").read_text()
    body = bundle.net.backbone.body.state_dict()
    weights = lite0_classifier().state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in body.items())


def trained(recipe: AvsBenchInstanceRecipe | InstanceRecipe, materials: Materials, out: Path) -> Trained:
    weights, last = None, None
    for job in recipe.jobs(materials):
        last = train(job, Alone("cpu"), str(out), NullRun(), out / "scratch", weights)
        weights = last.weights
    assert last is not None
    return last


@pytest.mark.slow
def test_s4_then_ms3_from_it(tmp_path: Path) -> None:
    """Two steps of each stage with VGGish; what they leave loads and segments."""
    torch.manual_seed(0)
    torch.save(VGGish().state_dict(), tmp_path / "vggish.pth")
    torch.save(lite0_classifier().state_dict(), tmp_path / f"{LITE0}.pth")
    vggish, backbone = str(tmp_path / "vggish.pth"), str(tmp_path / f"{LITE0}.pth")
    s4 = Materials(data=opened("s4", tmp_path / "s4"), steps=2, workers=0, vggish=vggish, backbone=backbone)
    first = trained(small(found("instances-s4-r50")), s4, tmp_path / "one")
    ms3 = Materials(data=opened("ms3", tmp_path / "ms3"), steps=2, workers=0, init=str(first.left))
    second = trained(small(found("instances-ms3-r50")), ms3, tmp_path / "two")
    for done in (first, second):
        assert done.left is not None
        bundle = load_bundle(done.left)
        assert bundle.categories == CATEGORIES
        assert bundle.config.metrics["val_clips"] == 2
        assert "re-implemented from the abstract" in (done.left / "card.md").read_text()
        with torch.inference_mode():
            logits = bundle.net(
                torch.zeros(1, 2, 3, 64, 64), bundle.audio_encoder(torch.zeros(2, 1, 96, 64))[None]
            ).logits
        assert logits.shape == (1, 2, 64, 64)
