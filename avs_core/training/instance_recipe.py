"""Our runs of the instance-aware model on composites: first what is seen, then what is heard of it."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from avs_core.audio import FrontEnd
from avs_core.datasets.sources import fetch_wheel
from avs_core.errors import ConfigError
from avs_core.evaluation.instances import Find
from avs_core.evaluation.predict import finding
from avs_core.models.audio_encoders import find_audio_encoder
from avs_core.models.bundle import BundleConfig, build_audio_encoder, load_bundle, save_bundle
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareNet
from avs_core.models.yamnet import YAMNet
from avs_core.training.activity import fit_activity, takes
from avs_core.training.calibrate import calibrate, names, weigh
from avs_core.training.card import LITE0_START, card, figures, instance_aware_net, origin
from avs_core.training.composites import (
    categories_of,
    held_out_of,
    labelled_share,
    pair_share,
    photographs,
    share_of,
)
from avs_core.training.data import StreamConfig
from avs_core.training.feed import FeedConfig
from avs_core.training.held_out import HeldOut
from avs_core.training.initialise import (
    LITE0,
    LITE0_INPUT,
    YAMNET_FILE,
    YAMNET_PACKAGE,
    load_backbone,
    load_known,
    load_lite0,
    load_vggish,
    load_yamnet,
)
from avs_core.training.instances import CorrelationObjective, InstanceTrainee, SightObjective, Stage, Teacher
from avs_core.training.job import TrainingJob
from avs_core.training.loop import LoopConfig
from avs_core.training.materials import Materials
from avs_core.training.network import Normalisation, Trainee
from avs_core.training.recipe_job import RecipeJob, Share

YAMNET, VGGISH = "yamnet", "vggish"
"""Audio encoders of ours that were trained elsewhere: they stay as they are."""

LIMITS = (
    "It knows about 60 kinds of things from 135 cut-outs and 111 recordings, and was trained and measured on "
    "composites of such: it has seen no real video with sound. Two things of one kind are lit together, whichever of "
    "them sounds, and a thing of a kind that it does not know stays dark or is taken for another."
)


@dataclass(frozen=True)
class InstanceRecipe:
    """Stage A: what is seen, on pictures. Stage B: what is heard of it, on pictures with sound; not where all is lit.

    With data it trains on their clips, else on composites made on the fly.

    net             without its number of categories, which the data decide
    seen, heard     composites on the fly of the two stages; seen_feed, heard_feed  clips from files
    audio_encoder   a name, see avs_core.models.audio_encoders; one that comes trained stays as it is
    normalise       the pictures, as the backbone's weights want them
    bundle_size, window_s  side of the pictures in pixels and seconds at a time, in the bundle
    val_clips, test_clips  composites on the fly that choose the threshold, and that are reported
    """

    name: str
    about: str
    net: InstanceAwareConfig
    seen: StreamConfig
    heard: StreamConfig
    seen_feed: FeedConfig
    heard_feed: FeedConfig
    sight: LoopConfig
    correlation: LoopConfig
    sight_objective: SightObjective
    correlation_objective: CorrelationObjective
    audio_encoder: str = "audio_cnn"
    normalise: Normalisation = LITE0_INPUT
    stored_as: Literal["fp32", "fp16"] = "fp32"
    bundle_size: int = 320
    window_s: int = 5
    val_clips: int = 30
    test_clips: int = 100

    @property
    def composes(self) -> bool:
        """Where it gets no data."""
        return True

    def jobs(self, materials: Materials) -> tuple[TrainingJob, ...]:
        """See Recipe. `materials.steps` are those of each stage.

        Raises ConfigError for weights that it does not read or lacks, and for those of another audio encoder.
        """
        if materials.ear is not None:
            return self.with_ear(materials.ear).jobs(replace(materials, ear=None))
        self._require_ear(materials)
        front_end = find_audio_encoder(self.audio_encoder).front_end
        materials = materials.heard_by(front_end)
        categories = categories_of(self.name, materials)
        steps = {} if materials.steps is None else {"steps": materials.steps}
        # Two orders of clips from one seed.
        sight = self.sight.model_copy(update={"seed": materials.seed} | steps)
        correlation = self.correlation.model_copy(update={"seed": materials.seed + 1} | steps)
        build = partial(new_trainee, self, categories, materials)
        seeing = RecipeJob(
            name="sight",
            loop=sight,
            build=partial(build, "sight"),
            share=share_of(self.name, materials, self.seen_feed, self.seen, sight.steps, front_end),
            objective=self._sight_objective(materials, categories),
            workers=materials.workers,
        )
        sizes = self.bundle_size, self.window_s, self.val_clips, self.test_clips
        held_out = held_out_of(self.name, materials, *sizes, front_end)
        last = partial(replace, held_out=held_out, leave=partial(leave_bundle, self, materials, categories))
        if self.net.composition == "all":
            return (last(seeing),)
        hearing = RecipeJob(
            name="correlation",
            loop=correlation,
            build=partial(build, "correlation"),
            share=self._heard(materials, correlation.steps, front_end),
            objective=self.correlation_objective,
            workers=materials.workers,
        )
        return seeing, last(hearing)

    def _require_ear(self, materials: Materials) -> None:
        """VGGish comes from its file, or like all others from a bundle; nothing else comes from that file."""
        materials.require_ear(self.name, self.audio_encoder)
        if self.audio_encoder != VGGISH or materials.audio is not None:
            materials.refuse(self.name, "vggish")
        elif materials.vggish is None:
            raise ConfigError(f"{self.name} hears with VGGish: give its weights, --vggish FILE")

    def _sight_objective(self, materials: Materials, categories: tuple[str, ...]) -> SightObjective:
        if self.sight_objective.silent != "pseudo":
            materials.refuse(self.name, "init")
        elif materials.init is None:
            raise ConfigError(f"{self.name} learns from the proposals of a frozen bundle: give it, --init")
        teacher = None if materials.init is None else Teacher(materials.init, categories)
        return replace(self.sight_objective, teacher=teacher)

    def with_ear(self, name: str) -> "InstanceRecipe":
        """The same with another audio encoder. Raises BundleError for a name that none has."""
        net = self.net.model_copy(update={"audio_channels": find_audio_encoder(name).embedding})
        return replace(self, audio_encoder=name, net=net)

    def _heard(self, materials: Materials, steps: int, front_end: FrontEnd) -> Share:
        seed = materials.seed + 1
        if materials.data is not None:
            return partial(labelled_share, materials.data, replace(self.heard_feed, seed=seed))
        own = replace(self.heard, seed=seed)
        return partial(pair_share, photographs(self.name, materials), own, steps, front_end=front_end)


def new_trainee(
    recipe: InstanceRecipe, categories: tuple[str, ...], materials: Materials, stage: Stage
) -> InstanceTrainee:
    """Untrained but for the backbone, and for the audio encoder where it comes trained, see `new_ear`.

    Raises BundleError, CheckpointMismatch.
    """
    torch.manual_seed(materials.seed)
    net = new_net(recipe.net.model_copy(update={"categories": len(categories)}), materials)
    if net.known is not None:
        load_known(net.known, categories)
    pretrained = find_audio_encoder(recipe.audio_encoder).pretrain is not None
    learned = recipe.audio_encoder in (YAMNET, VGGISH) or pretrained
    return InstanceTrainee(net, new_ear(recipe, materials), recipe.normalise, stage, learned=learned)


def new_ear(recipe: InstanceRecipe, materials: Materials) -> nn.Module:
    """The audio encoder: a bundle's, else with the weights of its file or package; random where it has none.

    Raises BundleError, CheckpointMismatch.
    """
    if materials.audio is not None:
        return load_bundle(materials.audio).audio_encoder
    if recipe.audio_encoder == VGGISH:
        assert materials.vggish is not None, "jobs() has asked for it"
        return load_vggish(materials.vggish)
    encoder, pretrain = build_audio_encoder(recipe.audio_encoder), find_audio_encoder(recipe.audio_encoder).pretrain
    if isinstance(encoder, YAMNet):
        load_yamnet(encoder, fetch_wheel(YAMNET_PACKAGE) / YAMNET_FILE)
    elif pretrain is not None:
        pretrain(encoder)
    return encoder


def new_net(config: InstanceAwareConfig, materials: Materials) -> InstanceAwareNet:
    """Untrained but for the backbone: weights of the materials, else of a package or, for larger ones, timm's.

    Raises CheckpointMismatch.
    """
    packaged = config.backbone == LITE0
    net = InstanceAwareNet(config, pretrained=not packaged and materials.backbone is None)
    if materials.backbone is not None:
        load_backbone(net.backbone.body, materials.backbone)
    elif packaged:
        load_lite0(net.backbone.body)
    return net


def backbone_start(config: InstanceAwareConfig, materials: Materials) -> str:
    """Where the backbone's weights come from, in a sentence for the card."""
    if materials.backbone is not None:
        return f"Weights of the backbone: {materials.backbone}."
    return LITE0_START if config.backbone == LITE0 else f"Weights of the backbone: timm's {config.backbone}."


def leave_bundle(
    recipe: InstanceRecipe,
    materials: Materials,
    categories: tuple[str, ...],
    trainee: Trainee,
    held_out: HeldOut,
    out: Path,
) -> Path:
    """Learn what noise is, choose the rest on val, measure what is shipped on test, write bundle/ with its card."""
    assert isinstance(trainee, InstanceTrainee), "the recipe builds one"
    data = None if materials.data is None else materials.data.name
    find = finding(trainee.net, trainee.audio_encoder, trainee.normalise, trainee.device)
    if materials.sources is not None and recipe.net.composition != "all":
        front_end = find_audio_encoder(recipe.audio_encoder).front_end
        trainee.net.attend(fit_activity(trainee.audio_encoder, takes(materials.sources, front_end), trainee.device))
    fit_on_val(trainee, held_out, categories)
    threshold = held_out.measure(trainee, "val").best_threshold()
    config = BundleConfig(
        name=recipe.name,
        arch="instance_aware",
        instance_aware=trainee.net.config,
        audio_encoder=recipe.audio_encoder,
        size=recipe.bundle_size,
        mean=recipe.normalise.mean,
        std=recipe.normalise.std,
        alignment=held_out.alignment,
        window_s=recipe.window_s,
        threshold=threshold,
        calibration=calibrate(find, held_out, categories),
        stored_as=recipe.stored_as,
        trained_on=recipe.about if data is None else f"{recipe.about}, on {data}",
        metrics=figures(held_out.measure(trainee, "test"), threshold),
        limits=LIMITS,
    )
    start = backbone_start(recipe.net, materials)
    folder, text = out / "bundle", card(config, instance_aware_net(config), _how(recipe, materials), start)
    save_bundle(folder, config, trainee.net, trainee.audio_encoder, text, categories)
    return folder


def fit_on_val(trainee: InstanceTrainee, held_out: HeldOut, categories: tuple[str, ...]) -> None:
    """Set what of the net's settings is chosen on val: how far to trust names, and what is heard."""
    net, parts = trainee.net, (trainee.audio_encoder, trainee.normalise)

    def find(weight: float) -> Find:
        net.config = net.config.model_copy(update={} if net.known is None else {"known": weight})
        return finding(net, *parts, trainee.device)

    temperature, known = names(find, held_out, categories)
    net.config = net.config.model_copy(
        update={"temperature": temperature} | ({} if net.known is None else {"known": known})
    )
    if net.config.composition == "instances":
        net.config = net.config.model_copy(update={"weighing": weigh(net, *parts, held_out)})


def _how(recipe: InstanceRecipe, materials: Materials) -> str:
    """The training in Markdown, for the card."""
    sight, correlation = (materials.steps or loop.steps for loop in (recipe.sight, recipe.correlation))
    if materials.data is None:
        seen, heard, flag = recipe.seen, recipe.heard, ""
        stages = (
            f"{sight} steps of {seen.clips} clips × {seen.frames} frames; then the ear, {correlation} steps of "
            f"{heard.clips} clips × 2 sounds × {heard.frames} frames"
        )
    else:
        flag = " --data URI"
        stages = (
            f"{sight} steps of {recipe.seen_feed.clips} clips × {recipe.seen_feed.seconds} frames; then the ear, "
            f"{correlation} steps of {recipe.heard_feed.clips} clips × {recipe.heard_feed.seconds} frames"
        )
    objective = recipe.sight_objective
    teacher = f" --init {materials.init}" if materials.init else ""
    ear = f" --ear {VGGISH} --vggish FILE" if materials.vggish else ""
    return f"""{origin(materials.data)}
First what is seen ({objective.known} objects are known, silent ones: {objective.silent}), behind the frozen backbone:
{stages}.
Audio encoder at the start: {_ear_start(recipe, materials)}. Seed {materials.seed}.

    avs train {recipe.name}{flag}{teacher}{ear} --out DIR"""


def _ear_start(recipe: InstanceRecipe, materials: Materials) -> str:
    """Where the weights of the audio encoder come from, for the card."""
    if materials.audio is not None:
        return materials.audio
    if recipe.audio_encoder == VGGISH:
        return f"{materials.vggish}, frozen"
    if recipe.audio_encoder == YAMNET:
        return f"{YAMNET_PACKAGE}, frozen"
    pretrained = find_audio_encoder(recipe.audio_encoder).pretrain is not None
    return f"{recipe.audio_encoder}'s own weights, frozen" if pretrained else "random"
