"""AVSBench tells of no objects: recipes that learn from these say so, whatever else it tells, and the others go on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avs_core.datasets.labelled import LabelledSet, Setting
from avs_core.datasets.opening import open_dataset
from avs_core.errors import ConfigError
from avs_core.evaluation.examine import evaluate_set
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.tpavi import TPAVINet
from avs_core.recipes import LIGHT, NAMED_SOUND, OWN_SOUND, SILENT_AWARE, find_recipe
from avs_core.training.data import Batch
from avs_core.training.job import TrainingJob
from avs_core.training.materials import Materials, Recipe
from avs_core.training.network import TPAVITrainee
from avs_core.training.published import PUBLISHED_INPUT, PublishedRecipe
from tests.avsbench_fixtures import write_avss, write_ms3, write_s4
from tests.evaluation.worlds import EYE
from tests.test_recipes import small
from tests.training import test_instances, test_two_stage
from tests.training.conftest import TINY_NET

# MS3 names no categories, so that what would name them has no outputs.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")

WRITERS = {"s4": write_s4, "ms3": write_ms3, "avss": write_avss}
FEED: dict[str, Any] = {"size": 64, "clips": 2}


def shrunk(recipe: Any) -> Any:
    """A recipe of objects on the clips of a test."""
    feeds = {name: replace(getattr(recipe, name), **FEED) for name in vars(recipe) if name.endswith("feed")}
    return replace(recipe, **feeds)


INSTANCES = shrunk(test_instances.RECIPE)
TWO_STAGE = shrunk(test_two_stage.RECIPE)
OBJECTIVES = {
    one.name: (one.sight_objective, one.correlation_objective) for one in (NAMED_SOUND, OWN_SOUND, *SILENT_AWARE[:3])
}


@pytest.fixture(params=["s4", "ms3", "avss"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> LabelledSet:
    setting: Setting = request.param
    return open_dataset(str(WRITERS[setting](tmp_path)), setting)


def jobs(recipe: Recipe, data: LabelledSet, audio: str | None = None) -> dict[str, TrainingJob]:
    return {job.name: job for job in recipe.jobs(Materials(data=data, audio=audio, workers=0))}


def first_step(job: TrainingJob) -> dict[str, torch.Tensor]:
    return dict(job.loss(job.model().train(), next(job.batches(0, 0, 1))))


def test_the_data_set_tells_neither_what_is_seen_nor_what_is_heard(data: LabelledSet) -> None:
    batch: Batch = next(jobs(small(LIGHT), data)["joint"].batches(0, 0, 1))
    assert (batch.heard, batch.unsure, batch.things, batch.outlines, batch.kinds) == (None,) * 5
    assert batch.masks.any()


@pytest.mark.parametrize("name", [None, *OBJECTIVES])
def test_what_learns_from_objects_refuses(data: LabelledSet, name: str | None) -> None:
    recipe = INSTANCES
    if name is not None:
        sight, correlation = OBJECTIVES[name]
        recipe = replace(recipe, sight_objective=sight, correlation_objective=correlation)
    phases = jobs(recipe, data)
    with pytest.raises(ConfigError, match="does not tell them apart"):
        first_step(phases["sight"])
    if recipe.correlation_objective.crossed:
        with pytest.raises(ConfigError, match="this data set tells none"):
            first_step(phases["correlation"])


def test_where_things_are_refuses_too_and_so_does_an_ear_that_learns_their_names(data: LabelledSet) -> None:
    phases = jobs(TWO_STAGE, data)
    with pytest.raises(ConfigError, match="does not tell them apart"):
        first_step(phases["instances"])
    for job in (phases["sound"], jobs(small(LIGHT), data)["sound"]):
        with pytest.raises(ConfigError, match="this data set does not say"):
            first_step(job)


def test_an_ear_that_has_learnt_goes_on_without_the_two_heads(data: LabelledSet) -> None:
    for job in (jobs(small(LIGHT), data, "tpavi-light")["joint"], jobs(TWO_STAGE, data, "tpavi-light")["fusion"]):
        terms = first_step(job)
        assert set(terms) == {"bce", "dice"}
        assert all(bool(torch.isfinite(term)) for term in terms.values())


def test_what_answers_without_classes_is_validated_without_them(data: LabelledSet) -> None:
    """Also on AVSS, whose own figure is one over classes."""
    for job in (jobs(small(LIGHT), data, "tpavi-light")["joint"], jobs(TWO_STAGE, data, "tpavi-light")["fusion"]):
        assert 0 <= job.validate(job.model().eval())["miou"] <= 1


def test_maps_of_classes_need_no_objects(tmp_path: Path) -> None:
    recipe = find_recipe("avss-pvt")
    assert isinstance(recipe, PublishedRecipe)
    recipe = replace(recipe, feed=replace(recipe.feed, **FEED))
    (job,) = recipe.jobs(Materials(data=open_dataset(str(write_avss(tmp_path))), vggish="weights", workers=0))
    net = TPAVINet(TINY_NET.model_copy(update={"classes": 71, "audio_bias": False}))
    trainee = TPAVITrainee(net, AudioCNN(), PUBLISHED_INPUT, None, frozen="audio_encoder").train()
    terms = job.loss(trainee, next(job.batches(0, 0, 1)))
    assert set(terms) == {"ce", "avm"}
    assert all(bool(torch.isfinite(term)) for term in terms.values())


def test_it_is_measured_without_what_needs_objects(data: LabelledSet) -> None:
    report = evaluate_set(EYE, data, "test")
    assert report.instances is None
    assert report.listening is not None
    assert report.listening.unavailable["pair_switch"] == "the data set has no masks of single objects"
    assert "absent" in report.listening.unavailable
