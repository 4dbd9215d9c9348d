"""Recipes have names, the published ones are as published, and an ablation changes what it says and nothing else."""

import pickle
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from avs_core.datasets.composed import ComposedSet
from avs_core.datasets.sources import Sources
from avs_core.errors import CheckpointMismatch, ConfigError
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import load_bundle
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.recipes import ABLATIONS, LIGHT, PUBLISHED, RECIPES, find_recipe
from avs_core.training.composites import LightRecipe
from avs_core.training.job import TrainingJob
from avs_core.training.materials import Materials, Recipe
from avs_core.training.network import TPAVITrainee
from avs_core.training.published import PUBLISHED_INPUT, PublishedRecipe
from tests.datasets.conftest import tiny_sources
from tests.training.test_feed import Told

__all__ = ["tiny_sources"]

TINY: dict[str, Any] = {"channels": 8, "inner": 4}


def told(setting: str, clips: int = 10) -> Told:
    return replace(Told(((0,),) * clips, (5,) * clips), setting=setting)


def small(recipe: LightRecipe) -> LightRecipe:
    """The recipe with few channels and pixels."""
    return replace(
        recipe,
        net=recipe.net.model_copy(update=TINY),
        stream=replace(recipe.stream, size=64, clips=2),
        sound_stream=replace(recipe.sound_stream, clips=2),
        feed=replace(recipe.feed, size=64, clips=2),
        bundle_size=64,
    )


def test_names_are_distinct_and_found() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    for recipe in RECIPES:
        assert find_recipe(recipe.name) is recipe
        assert isinstance(recipe, Recipe)
        assert 10 < len(recipe.about) < 100


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(ConfigError, match=r"s4-r50.*composites-light.*got tpavi-heavy"):
        find_recipe("tpavi-heavy")


def test_the_built_in_bundle_is_what_its_recipe_makes() -> None:
    config = load_bundle("tpavi-light").config
    assert config.tpavi == LIGHT.net
    assert (config.size, config.window_s) == (LIGHT.bundle_size, LIGHT.window_s)
    assert config.metrics["miou_sounding"] > 0


@pytest.mark.parametrize(
    ("name", "backbone", "classes", "bias", "epochs"),
    [
        ("s4-r50", "resnet50", 1, True, 15),
        ("s4-pvt", "pvt_v2_b5", 1, True, 15),
        ("ms3-r50", "resnet50", 1, True, 30),
        ("ms3-pvt", "pvt_v2_b5", 1, True, 30),
        ("ms3-pvt-from-s4", "pvt_v2_b5", 1, True, 30),
        ("avss-pvt", "pvt_v2_b5", 71, False, 60),
    ],
)
def test_published_runs_are_as_published(name: str, backbone: str, classes: int, bias: bool, epochs: int) -> None:
    recipe = find_recipe(name)
    assert isinstance(recipe, PublishedRecipe)
    assert recipe.net == TPAVIConfig(backbone=backbone, audio_bias=bias, classes=classes)
    init = "s4" if recipe.from_s4 else None
    (job,) = recipe.jobs(Materials(data=told(recipe.setting), vggish="weights", init=init, seed=3))
    loop = job.loop
    # 10 clips are 3 batches of 4
    assert (loop.steps, loop.validate_every, loop.checkpoint_every) == (3 * epochs, 3, 3)
    assert (loop.optimiser, loop.lr, loop.schedule, loop.weight_decay) == ("adam", 1e-4, "constant", 0)
    assert (loop.precision, loop.clip_norm, loop.ema, loop.warm_up, loop.accumulate) == ("fp32", None, 0, 0, 1)
    assert loop.seed == 3
    assert (recipe.feed.size, recipe.feed.clips, recipe.feed.seconds) == (224, 4, None)
    assert (recipe.feed.alignment, recipe.feed.flip, recipe.feed.jitter) == ("official", 0, 0)


def test_lambda_is_nought_for_s4_and_a_half_for_the_others() -> None:
    weights = {recipe.setting: getattr(recipe.objective, "agreement", recipe.objective) for recipe in PUBLISHED}
    assert not hasattr(weights["s4"], "weight")
    assert weights["ms3"].weight == weights["avss"].weight == 0.5
    assert weights["ms3"].variant == "av"
    assert weights["ms3"].frames == 20


@pytest.mark.parametrize(
    ("name", "materials", "match"),
    [
        ("s4-pvt", {}, "give it data"),
        ("s4-pvt", {"data": told("s4")}, "--vggish"),
        ("s4-pvt", {"data": told("s4"), "vggish": "x", "init": "y"}, "takes no --init"),
        ("ms3-pvt-from-s4", {"data": told("ms3"), "vggish": "x"}, "--init"),
        ("ms3-pvt", {"data": told("s4"), "vggish": "x"}, "trains on ms3 data; told is s4"),
        ("composites-light", {}, "photographs and recordings"),
        ("composites-light-pairs", {"data": told("ms3")}, "leave out --data"),
    ],
)
def test_missing_materials_are_asked_for_before_anything_runs(name: str, materials: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        find_recipe(name).jobs(Materials(**materials))


READ = {
    "s4-r50": {"vggish", "backbone"},
    "ms3-pvt-from-s4": {"vggish", "init"},
    "avss-pvt": {"vggish", "backbone"},
    "composites-light": {"audio"},
    "composites-light-pairs": {"audio"},
    "two-stage-light": {"audio"},
    "two-stage-coco": {"audio", "init"},
    "instances-light": {"audio", "backbone", "ear"},
    "instances-light-pseudo": {"audio", "backbone", "ear", "init"},
    "instances-s4-pvt": {"vggish", "backbone"},
    "instances-ms3-pvt": {"init"},
    "instances-avss-pvt": {"vggish", "backbone"},
}
NEEDED = {"s4": {"vggish": "x"}, "ms3": {"vggish": "x", "init": "x"}, "avss": {"vggish": "x"}}


@pytest.mark.parametrize("name", READ)
def test_weights_that_a_recipe_does_not_read_are_refused(name: str, tiny_sources: Sources) -> None:
    recipe = find_recipe(name)
    given: dict[str, Any] = {"init": "x"} if name in ("two-stage-coco", "instances-light-pseudo") else {}
    if recipe.composes:
        given["sources"] = tiny_sources
    else:
        given |= {"data": told(recipe.setting)} | NEEDED[recipe.setting]  # type: ignore[attr-defined]
    if name == "instances-ms3-pvt":
        del given["vggish"]
    assert recipe.jobs(Materials(**given))
    for material in {"vggish", "backbone", "init", "audio", "ear"} - READ[name]:
        with pytest.raises(ConfigError, match=rf"{name} takes .*--{material}"):
            recipe.jobs(Materials(**given | {material: "x"}))


def test_an_audio_encoder_of_another_kind_is_refused_before_anything_runs(tiny_sources: Sources) -> None:
    with pytest.raises(ConfigError, match="composites-light hears with audio_cnn, instances-light with yamnet"):
        LIGHT.jobs(Materials(sources=tiny_sources, audio="instances-light"))


def test_a_file_that_is_no_weights_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]  # pytest's path
    path = tmp_path / "vggish.pth"
    path.write_bytes(b"no weights")
    recipe = replace(find_recipe("s4-r50"), backbone="resnet50")
    materials = Materials(data=told("s4"), vggish=str(path), backbone=str(path))
    (job,) = recipe.jobs(materials)
    with pytest.raises(CheckpointMismatch, match="is no file of weights"):
        job.model()


CHANGES = {
    "no-audio": ("net", {"stages": ()}),
    "add": ("net", {"fusion": "add"}),
    **{f"stage-{i}": ("net", {"stages": (i,)}) for i in range(4)},
    "quiet": ("hearing", 0.0),
    "pairs": ("pairs", True),
    "avm-av": ("objective", "av"),
    "avm-vv": ("objective", "vv"),
}


def test_an_ablation_changes_what_it_says_and_nothing_else() -> None:
    assert {one.name.removeprefix("composites-light-") for one in ABLATIONS} == set(CHANGES)
    for one in ABLATIONS:
        where, what = CHANGES[one.name.removeprefix("composites-light-")]
        changed = {f.name for f in fields(one) if getattr(one, f.name) != getattr(LIGHT, f.name)}
        assert changed == {"name", "about", where}
        if where in {"hearing", "pairs"}:
            assert getattr(one, where) == what
        elif where == "net":
            assert one.net == LIGHT.net.model_copy(update=what)
        else:
            assert replace(one.objective, agreement=None) == LIGHT.objective
            assert one.objective.agreement is not None
            assert (one.objective.agreement.variant, one.objective.agreement.weight) == (what, 0.5)
            assert one.objective.agreement.frames == LIGHT.feed.clips * (LIGHT.feed.seconds or 0)


@pytest.mark.parametrize("recipe", [LIGHT, *ABLATIONS], ids=lambda recipe: recipe.name)
def test_the_first_step_of_our_recipes(recipe: LightRecipe, tiny_sources: Sources) -> None:
    materials = Materials(sources=tiny_sources, workers=0, steps=2)
    sound, joint = small(recipe).jobs(materials)
    for job in (sound, joint):
        assert isinstance(job, TrainingJob)
        pickle.dumps(job)
        model = job.model().train()
        terms = job.loss(model, next(job.batches(0, 0, 1)))
        torch.stack(list(terms.values())).sum().backward()
        assert all(bool(torch.isfinite(term)) for term in terms.values())
    assert (sound.name, joint.name, joint.loop.steps) == ("sound", "joint", 2)


def test_without_audio_the_answer_is_the_same_under_any_sound(tiny_sources: Sources) -> None:
    answers = {}
    for name in ("composites-light", "composites-light-add", "composites-light-no-audio"):
        recipe = find_recipe(name)
        assert isinstance(recipe, LightRecipe)
        _, job = small(recipe).jobs(Materials(sources=tiny_sources, workers=0))
        trainee = job.model().eval()
        for block in trainee.net.tpavi.values():
            if hasattr(block, "bn"):
                torch.nn.init.ones_(block.bn.weight)
        torch.manual_seed(0)
        frames = torch.randint(0, 255, (1, 2, 64, 64, 3), dtype=torch.uint8)
        with torch.inference_mode():
            said = [trainee(frames, 3 * torch.randn(1, 2, 1, 96, 64)).masks.logits for _ in range(2)]
        answers[name] = torch.equal(*said)
    assert answers == {
        "composites-light": False,
        "composites-light-add": False,
        "composites-light-no-audio": True,
    }


def test_a_recipe_trains_on_labelled_clips_alone(tiny_sources: Sources) -> None:
    data = ComposedSet(tiny_sources, {"train": 4, "val": 1, "test": 1}, seconds=3)
    sound, joint = small(LIGHT).jobs(Materials(data=data, workers=0))
    for job in (sound, joint):
        terms = job.loss(job.model().train(), next(job.batches(0, 0, 1)))
        assert all(bool(torch.isfinite(term)) for term in terms.values())


def test_an_audio_encoder_from_a_bundle_needs_no_training(tiny_sources: Sources) -> None:
    (job,) = small(LIGHT).jobs(Materials(sources=tiny_sources, audio="tpavi-light", workers=0))
    ours, theirs = job.model().audio_encoder.state_dict(), load_bundle("tpavi-light").audio_encoder.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert job.model().audio_encoder.embedding.weight.requires_grad


def test_another_seed_is_another_start_and_another_order(tiny_sources: Sources) -> None:
    jobs = [small(LIGHT).jobs(Materials(sources=tiny_sources, seed=seed, workers=0))[1] for seed in (0, 0, 1)]
    starts = [job.model().namer.weight for job in jobs]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    frames = [next(job.batches(0, 0, 1)).frames for job in jobs]
    assert torch.equal(frames[0], frames[1])
    assert not torch.equal(frames[0], frames[2])


@pytest.mark.parametrize("recipe", PUBLISHED, ids=lambda recipe: recipe.name)
def test_the_first_step_of_published_recipes_with_a_small_stand_in(recipe: PublishedRecipe) -> None:
    """The recipe's own classes, bias, objective and feed; a backbone and an audio encoder that fit into a test."""
    init = "s4" if recipe.from_s4 else None
    recipe = replace(recipe, feed=replace(recipe.feed, size=32))
    data = SemanticTold(((0,),) * 4, (5,) * 4, setting="avss") if recipe.setting == "avss" else told(recipe.setting)
    (job,) = recipe.jobs(Materials(data=data, vggish="weights", init=init, workers=0))
    net = TPAVINet(recipe.net.model_copy(update={"backbone": "tf_efficientnet_lite0"} | TINY))
    trainee = TPAVITrainee(net, AudioCNN(), PUBLISHED_INPUT, None, frozen="audio_encoder").train()
    terms = job.loss(trainee, next(job.batches(0, 0, 1)))
    torch.stack(list(terms.values())).sum().backward()
    assert set(terms) == {"s4": {"bce"}, "ms3": {"bce", "avm"}, "avss": {"ce", "avm"}}[recipe.setting]
    assert all(bool(torch.isfinite(term)) for term in terms.values())
    assert next(net.backbone.parameters()).grad is not None


class SemanticTold(Told):
    """With classes: everything is class 3."""

    def load(self, *args: Any) -> Any:
        clip = super().load(*args)
        return replace(clip, labels=clip.masks.astype("int64") + 3)
