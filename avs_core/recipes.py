"""Named runs as values: the first file to read. Each is everything that `avs train NAME` needs to know."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from avs_core.datasets.labelled import Setting
from avs_core.errors import ConfigError
from avs_core.losses import PUBLISHED_FRAMES
from avs_core.models.backbones import BackboneName
from avs_core.models.instance_aware import InstanceAwareConfig
from avs_core.models.tpavi import TPAVIConfig
from avs_core.models.two_stage import MaskRCNNConfig, TwoStageConfig
from avs_core.query_losses import SilentAware
from avs_core.training.composites import LightRecipe
from avs_core.training.data import StreamConfig
from avs_core.training.feed import FeedConfig
from avs_core.training.instance_published import AvsBenchInstanceRecipe
from avs_core.training.instance_recipe import InstanceRecipe
from avs_core.training.instances import CorrelationObjective, SightObjective
from avs_core.training.loop import LoopConfig
from avs_core.training.materials import Recipe
from avs_core.training.objectives import Agreement, AVSSObjective, LightObjective, MS3Objective, S4Objective, Variant
from avs_core.training.published import PUBLISHED_INPUT, PublishedRecipe
from avs_core.training.two_stage_recipe import TwoStageRecipe

DEMO_CLIPS = Path(__file__).parent / "builtin" / "demo"
"""The clips of `avs demo`, with their truth and their sources."""

S4, MS3 = S4Objective(), MS3Objective()

PUBLISHED = (
    PublishedRecipe("s4-r50", "TPAVI with ResNet-50 on S4, as published", "s4", "resnet50", 15, S4),
    PublishedRecipe("s4-pvt", "TPAVI with PVT-v2-b5 on S4, as published", "s4", "pvt_v2_b5", 15, S4),
    PublishedRecipe("ms3-r50", "TPAVI with ResNet-50 on MS3, as published", "ms3", "resnet50", 30, MS3),
    PublishedRecipe("ms3-pvt", "TPAVI with PVT-v2-b5 on MS3, as published", "ms3", "pvt_v2_b5", 30, MS3),
    PublishedRecipe(
        "ms3-pvt-from-s4", "ms3-pvt that starts from an S4 run (--init)", "ms3", "pvt_v2_b5", 30, MS3, from_s4=True
    ),
    PublishedRecipe(
        "avss-pvt", "TPAVI with PVT-v2-b5 on AVSS, 71 classes, as published", "avss", "pvt_v2_b5", 60, AVSSObjective()
    ),
)

LIGHT = LightRecipe(
    name="composites-light",
    about="TPAVI-light on composites of real photographs and recordings",
    net=TPAVIConfig(backbone="tf_efficientnet_lite0", channels=64, inner=32, finest=8),
    stream=StreamConfig(size=320, clips=6, frames=2),
    sound_stream=StreamConfig(size=16, clips=10, frames=2),
    feed=FeedConfig(size=320, clips=6, seconds=2, alignment="aligned", flip=0.5, jitter=0.15),
    sound_feed=FeedConfig(size=32, clips=10, seconds=2, alignment="aligned"),
    sound=LoopConfig(steps=600, lr=2e-3, warm_up=50, precision="bf16"),
    joint=LoopConfig(steps=1400, lr=1.5e-3, precision="bf16"),
    objective=LightObjective(),
)
"""What the bundle tpavi-light was trained with."""


def _light(suffix: str, about: str, **change: Any) -> LightRecipe:
    """composites-light with one change."""
    return replace(LIGHT, name=f"{LIGHT.name}-{suffix}", about=f"{LIGHT.name} {about}", **change)


def _net(suffix: str, about: str, **change: Any) -> LightRecipe:
    """composites-light with one change of its net."""
    return _light(suffix, about, net=LIGHT.net.model_copy(update=change))


def _avm(variant: Variant, about: str) -> LightRecipe:
    """composites-light with the published L_AVM, summed over the frames of its own batches."""
    frames = LIGHT.feed.clips * (LIGHT.feed.seconds or PUBLISHED_FRAMES)
    return _light(
        f"avm-{variant}", about, objective=replace(LIGHT.objective, agreement=Agreement(variant, frames=frames))
    )


ABLATIONS = (
    _net("no-audio", "that cannot hear", stages=()),
    _net("add", "with the audio added to the maps instead of TPAVI", fusion="add"),
    _avm("av", "with 0.5 · L_AVM-AV"),
    _avm("vv", "with 0.5 · L_AVM-VV"),
    *(_net(f"stage-{i}", f"with TPAVI at stage {i + 1} of 4 alone", stages=(i,)) for i in range(4)),
    _light("quiet", "with the published start of TPAVI, which adds nothing to the maps", hearing=0.0),
    _light("pairs", "whose pictures each come with two sounds, on the fly", pairs=True),
)
"""Paper 1's ablations on composites, one of the start, one of the data. Without L_AVM is composites-light itself."""

INSTANCES = InstanceRecipe(
    name="instances-light",
    about="instance-aware AVS on composites, all objects known in stage A",
    net=InstanceAwareConfig(backbone="tf_efficientnet_lite0", categories=1, finest=8, audio_channels=1024, known=0.0),
    audio_encoder="yamnet",
    stored_as="fp16",
    seen=StreamConfig(size=320, clips=12, frames=1, hushed=0.0, foreign=0.0),
    heard=StreamConfig(size=320, clips=8, frames=1, noisy=0.12, apart=False),
    seen_feed=FeedConfig(size=320, clips=12, seconds=1, alignment="aligned", flip=0.5, jitter=0.15),
    heard_feed=FeedConfig(size=320, clips=12, seconds=1, alignment="aligned", flip=0.5, jitter=0.15),
    sight=LoopConfig(steps=3600, lr=1e-3, weight_decay=0.02, precision="bf16"),
    correlation=LoopConfig(steps=1500, lr=2e-3, weight_decay=0.01, precision="bf16"),
    sight_objective=SightObjective(known="all", silent="plain"),
    correlation_objective=CorrelationObjective(crossed=True),
)
"""Paper 2 with what composites know of silent objects too: the built-in bundle. `categories` are those of the data."""


def _silent(variant: SilentAware, about: str) -> InstanceRecipe:
    """instances-light from sounding objects alone, as paper 2 has it."""
    return replace(
        INSTANCES,
        name=f"{INSTANCES.name}-{variant}",
        about=f"instance-aware AVS from sounding objects alone, {about}",
        sight_objective=SightObjective(known="sounding", silent=variant),
    )


INSTANCES_FULL = replace(
    INSTANCES,
    name="instances-full",
    about="instances-light for a GPU: PVT-v2-b5, 384 pixels, a wider and deeper net",
    net=InstanceAwareConfig(
        backbone="pvt_v2_b5", categories=1, queries=32, learnt=8, channels=256, heads=8, layers=6, audio_channels=1024
    ),
    normalise=PUBLISHED_INPUT,
    stored_as="fp32",
    seen=replace(INSTANCES.seen, size=384, clips=32),
    heard=replace(INSTANCES.heard, size=384, clips=16),
    seen_feed=replace(INSTANCES.seen_feed, size=384, clips=32),
    heard_feed=replace(INSTANCES.heard_feed, size=384, clips=32),
    sight=LoopConfig(
        steps=20_000, lr=2e-4, weight_decay=0.05, warm_up=500, ema=0.999, precision="bf16", checkpoint_every=1000
    ),
    correlation=LoopConfig(
        steps=5_000, lr=1e-3, weight_decay=0.01, warm_up=250, precision="bf16", checkpoint_every=1000
    ),
    bundle_size=384,
)
"""The same stages and data; the backbone is frozen here too, see TPAVITrainee."""

SILENT_AWARE = (
    _silent("plain", "with plain MaskFormer's no-object loss"),
    _silent("ignore", "what may be silent is left alone"),
    _silent("soft", "what may be silent is only told what it is not"),
    _silent("pseudo", "a bundle's proposals (--init) are the others"),
)
"""The silent object-aware objectives of paper 2, and what they are compared with."""

UNCORRELATED = replace(
    INSTANCES,
    name=f"{INSTANCES.name}-uncorrelated",
    about=f"{INSTANCES.name} that lights all it sees, whatever is heard",
    net=INSTANCES.net.model_copy(update={"composition": "all"}),
)
"""What the correlation is compared with."""

OWN_SOUND = replace(
    INSTANCES,
    name=f"{INSTANCES.name}-own",
    about=f"{INSTANCES.name} whose ear learns from the lit masks of its own sounds alone, as in paper 2",
    correlation_objective=CorrelationObjective(),
)
"""INSTANCES crosses pictures with the sounds of others, for which somebody must say what these are of."""

NAMED_SOUND = replace(
    INSTANCES,
    name=f"{INSTANCES.name}-named",
    about=f"{INSTANCES.name} whose ear is told the categories that are heard, which paper 2 never does",
    correlation_objective=CorrelationObjective(crossed=True, naming=0.5),
)
"""What learning to hear from masks costs: the supervised variant, to compare with."""

AVSBENCH_LOOP = LoopConfig(
    steps=1, lr=1e-4, weight_decay=0.05, warm_up=200, ema=0.999, precision="bf16", batch_norm="frozen"
)
"""Of the instance-aware runs on AVSBench; the steps follow from the epochs and the data."""

_EYES: dict[str, tuple[BackboneName, str]] = {
    "r50": ("resnet50", "ResNet-50"),
    "pvt": ("pvt_v2_b5", "PVT-v2-b5"),
    "swin": ("swin_base_patch4_window7_224", "Swin-B"),
}
_EPOCHS: dict[Setting, tuple[int, int]] = {"s4": (30, 15), "ms3": (60, 30), "avss": (60, 30)}


def _on_avsbench(setting: Setting, eyes: str) -> AvsBenchInstanceRecipe:
    """The instance-aware model on a setting of AVSBench."""
    backbone, title = _EYES[eyes]
    start = ", from an S4 run (--init)" if setting == "ms3" else ""
    return AvsBenchInstanceRecipe(
        name=f"instances-{setting}-{eyes}",
        about=f"instance-aware AVS with {title} on {setting.upper()}{start}",
        setting=setting,
        net=INSTANCES_FULL.net.model_copy(update={"backbone": backbone, "audio_channels": 128}),
        sight=_EPOCHS[setting][0],
        correlation=_EPOCHS[setting][1],
        loop=AVSBENCH_LOOP,
    )


INSTANCES_AVSBENCH = (
    *(_on_avsbench("s4", eyes) for eyes in _EYES),
    *(_on_avsbench("ms3", eyes) for eyes in _EYES),
    _on_avsbench("avss", "pvt"),
)
"""Paper 2's rows, and AVSS."""

TWO_STAGE = TwoStageRecipe(
    name="two-stage-light",
    about="paper 1's two-stage baseline on composites: Mask R-CNN, then its fusion with the sound",
    net=TwoStageConfig(
        backbone="tf_efficientnet_lite0",
        # composites at 320 pixels show things of 46 to 195 pixels
        detector=MaskRCNNConfig(
            classes=2,
            pyramid=64,
            hidden=256,
            anchors=(48, 72, 104, 144, 200),
            proposals=100,
            objects=16,
            sampled=64,
        ),
        channels=LIGHT.net.channels,
        finest=LIGHT.net.finest,
    ),
    seen=INSTANCES.seen,
    stream=LIGHT.stream,
    sound_stream=LIGHT.sound_stream,
    seen_feed=INSTANCES.seen_feed,
    feed=LIGHT.feed,
    sound_feed=LIGHT.sound_feed,
    sound=LIGHT.sound,
    instances=INSTANCES.sight,
    fusion=LIGHT.joint,
    objective=LIGHT.objective,
)
"""Stage 1 has the pictures and steps of instances-light's stage A, stage 2 the clips and steps of composites-light."""

TWO_STAGE_COCO = replace(
    TWO_STAGE,
    name="two-stage-coco",
    about="two-stage-light with torchvision's COCO weights of Mask R-CNN (--init FILE), frozen",
    net=TwoStageConfig(backbone="resnet50"),
    instances=None,
    normalise=PUBLISHED_INPUT,
)
"""As in the paper, stage 1 is not ours to train: FILE is that of torchvision's maskrcnn_resnet50_fpn."""

RECIPES: tuple[Recipe, ...] = (
    *PUBLISHED,
    LIGHT,
    *ABLATIONS,
    TWO_STAGE,
    TWO_STAGE_COCO,
    INSTANCES,
    INSTANCES_FULL,
    *SILENT_AWARE,
    UNCORRELATED,
    OWN_SOUND,
    NAMED_SOUND,
    *INSTANCES_AVSBENCH,
)


def find_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises ConfigError with the names that exist."""
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise ConfigError(f"a recipe must be one of {', '.join(recipe.name for recipe in RECIPES)}; got {name}")
