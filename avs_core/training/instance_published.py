"""The instance-aware model on AVSBench: S4, MS3, AVSS.

The paper (Liu et al., ACM MM 2023, arXiv 2307.16620) reports ResNet-50, PVT-v2 and Swin-B on S4 and MS3. Of its
training only this is known to us: first potential sounding objects are segmented, then they are correlated with the
sound, which is learned from the mask of what sounds. The rest is ours: AdamW at 1e-4 with a cosine, weight decay 0.05
and clipping, as query-based nets are trained (Mask2Former, CVPR 2022), epochs and batches for one large GPU, VGGish
frozen.

Stage A learns from the objects that `RegionSet` makes of the masks. No silent object has a mask, so what may be one is
left alone (`ignore`). MS3 tells no categories: its net starts from an S4 run, whose names and ear it keeps, and its
regions teach only that there is something.

Stage B learns the ear from lit masks: on S4 and AVSS of every picture of a batch under every sound of it, on MS3 of
each clip under its own sound.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from avs_core.datasets.labelled import LabelledSet, Setting
from avs_core.datasets.regions import RegionSet
from avs_core.errors import CheckpointMismatch, ConfigError
from avs_core.models.bundle import BundleConfig, load_bundle, save_bundle
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareNet
from avs_core.training.card import figures, instance_aware_net
from avs_core.training.composites import labelled_share
from avs_core.training.data import OBJECTS
from avs_core.training.feed import FeedConfig, LabelledBatches
from avs_core.training.held_out import HeldOut
from avs_core.training.initialise import load_vggish
from avs_core.training.instance_recipe import backbone_start, new_net
from avs_core.training.instances import CorrelationObjective, InstanceTrainee, SightObjective, Stage
from avs_core.training.job import TrainingJob
from avs_core.training.loop import LoopConfig
from avs_core.training.materials import Materials
from avs_core.training.network import Trainee
from avs_core.training.published import ALIGNMENT, PUBLISHED_INPUT
from avs_core.training.recipe_job import RecipeJob

AUDIO: str = "vggish"
WINDOW_S = 5

LIMITS = (
    "It names and lights what AVSBench's training split shows sounding. Two things of one kind are lit together, "
    "whichever of them sounds, and a thing of a kind that it does not know stays dark or is taken for another."
)


@dataclass(frozen=True)
class AvsBenchInstanceRecipe:
    """Both stages on one setting of AVSBench.

    net     without its number of categories, which the data or the bundle it starts from decide
    sight   epochs of stage A, the backbone too; correlation  of stage B, the ear alone
    feed    one labelled second of each clip an epoch
    loop    of both stages, but for the steps, which follow from the epochs
    """

    name: str
    about: str
    setting: Setting
    net: InstanceAwareConfig
    sight: int
    correlation: int
    loop: LoopConfig
    feed: FeedConfig = field(default_factory=lambda: FeedConfig(clips=16, seconds=1, flip=0.5, jitter=0.15))

    @property
    def composes(self) -> bool:
        """It trains on AVSBench alone."""
        return False

    @property
    def continues(self) -> bool:
        """Whether it starts from a bundle, since its data have no names."""
        return self.setting == "ms3"

    def jobs(self, materials: Materials) -> tuple[TrainingJob, ...]:
        """See Recipe. `materials.steps` are those of each stage. Raises ConfigError for wrong or missing materials."""
        data = self._data(materials)
        named = not self.continues
        held_out = HeldOut(data, self.feed.size, ALIGNMENT, WINDOW_S)
        stage = partial(self._stage, materials, data)
        objective = CorrelationObjective(crossed=named, known="sounding")
        hearing = stage("correlation", self.correlation, objective)
        return (
            stage("sight", self.sight, SightObjective("sounding", "ignore", named=named)),
            replace(hearing, held_out=held_out, leave=partial(leave_bundle, self, materials)),
        )

    def _stage(
        self,
        materials: Materials,
        data: RegionSet,
        stage: Stage,
        epochs: int,
        objective: SightObjective | CorrelationObjective,
    ) -> RecipeJob:
        # Two orders of clips from one seed.
        seed = materials.seed + (stage == "correlation")
        feed = replace(self.feed, seed=seed)
        epoch = LabelledBatches(data, "train", feed).epoch_steps
        steps = materials.steps or epochs * epoch
        # Stage A has nothing that chooses its weights; the running mean of its last ones is taken.
        looks = epoch if stage == "correlation" else None
        return RecipeJob(
            name=stage,
            loop=self.loop.model_copy(
                update={"steps": steps, "seed": seed, "checkpoint_every": epoch, "validate_every": looks}
            ),
            build=partial(new_trainee, self, materials, len(data.categories), stage),
            share=partial(labelled_share, data, feed),
            objective=objective,
            workers=materials.workers,
        )

    def _data(self, materials: Materials) -> RegionSet:
        data = materials.labelled(self.name)
        if data.setting != self.setting:
            raise ConfigError(f"{self.name} trains on {self.setting} data; {data.name} is {data.setting}: see --kind")
        materials.refuse(self.name, "audio", "ear")
        if self.continues and materials.init is None:
            raise ConfigError(
                f"{self.name} starts from an S4 run, {self.setting} has no names: give its bundle, --init"
            )
        if not self.continues:
            materials.refuse(self.name, "init")
        if not self.continues and materials.vggish is None:
            raise ConfigError(f"{self.name} hears with VGGish: give its weights, --vggish FILE")
        if self.continues and (materials.vggish, materials.backbone) != (None, None):
            raise ConfigError(f"{self.name} takes all weights from its --init: leave out --vggish and --backbone")
        return RegionSet(data, OBJECTS)


def new_trainee(recipe: AvsBenchInstanceRecipe, materials: Materials, categories: int, stage: Stage) -> InstanceTrainee:
    """The net before its first step. Raises BundleError, CheckpointMismatch."""
    torch.manual_seed(materials.seed)
    if materials.init is not None:
        net, encoder = continued(recipe, materials.init)
    else:
        assert materials.vggish is not None, "jobs() has asked for it"
        net = new_net(recipe.net.model_copy(update={"categories": categories}), materials)
        encoder = load_vggish(materials.vggish)
    return InstanceTrainee(net, encoder, PUBLISHED_INPUT, stage, learned=True, tuned=True)


def continued(recipe: AvsBenchInstanceRecipe, bundle: str) -> tuple[InstanceAwareNet, torch.nn.Module]:
    """Net and ear of a bundle. Raises BundleError, CheckpointMismatch for a bundle of another net."""
    loaded = load_bundle(bundle)
    config = loaded.config.instance_aware
    if config is None:
        raise CheckpointMismatch(
            f"{recipe.name} starts from an instance-aware bundle, {bundle} is {loaded.config.arch}"
        )
    wanted = recipe.net.model_copy(update={"categories": config.categories, "temperature": config.temperature})
    if config != wanted or loaded.config.audio_encoder != AUDIO:
        raise CheckpointMismatch(
            f"{recipe.name} trains {wanted} with {AUDIO}; {bundle} is {config} with {loaded.config.audio_encoder}: "
            "start from the S4 run with the same backbone"
        )
    net = InstanceAwareNet(config)
    net.load_state_dict(loaded.net.state_dict())
    return net, loaded.audio_encoder


def leave_bundle(
    recipe: AvsBenchInstanceRecipe, materials: Materials, trainee: Trainee, held_out: HeldOut, out: Path
) -> Path:
    """bundle/ with the threshold and the figures of the validation split; `avs evaluate` measures the test split."""
    assert isinstance(trainee, InstanceTrainee), "the recipe builds one"
    data, found = held_out.data, held_out.measure(trainee, "val")
    categories = data.categories if materials.init is None else load_bundle(materials.init).categories
    threshold = found.best_threshold()
    config = BundleConfig(
        name=recipe.name,
        arch="instance_aware",
        instance_aware=trainee.net.config,
        audio_encoder=AUDIO,
        size=held_out.size,
        mean=PUBLISHED_INPUT.mean,
        std=PUBLISHED_INPUT.std,
        alignment=ALIGNMENT,
        window_s=held_out.window_s,
        threshold=threshold,
        trained_on=f"{recipe.about}, on {data.name}",
        metrics={f"val_{name}": value for name, value in figures(found, threshold).items()},
        limits=LIMITS,
    )
    folder = out / "bundle"
    save_bundle(folder, config, trainee.net, trainee.audio_encoder, _card(config, recipe, materials, data), categories)
    return folder


def _card(config: BundleConfig, recipe: AvsBenchInstanceRecipe, materials: Materials, data: LabelledSet) -> str:
    rows = "\n".join(f"| {name} | {value:g} |" for name, value in config.metrics.items())
    if materials.init is None:
        start, flags = backbone_start(recipe.net, materials), "--vggish FILE"
    else:
        start, flags = f"All weights at the start: {materials.init}.", "--init BUNDLE"
    return f"""# {config.name}

{config.trained_on} (version {data.version}).

{instance_aware_net(config)}

{start} Seed {materials.seed}. Threshold {config.threshold:g}, chosen on the validation split.

    avs train {config.name} --data URI {flags} --out DIR

| figure | value |
|---|---|
{rows}

Figures of the test split: `avs evaluate`.

## What it can't do

{config.limits}
"""
