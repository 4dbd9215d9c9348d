"""The runs of "Audio-Visual Segmentation" (Zhou et al., ECCV 2022, arXiv 2207.05042), as published.

Published (paper, section 5.1, and its training code): Adam at 1e-4 throughout, 4 clips a batch, 224 pixels, float32,
no augmentation, ImageNet weights for the backbone, which learns; VGGish frozen; the epoch of the best validation mIoU
is kept. S4 15 epochs of BCE on the first frame, MS3 30 of BCE + 0.5·L_AVM-AV, AVSS 60 of cross entropy + 0.5·L_AVM-AV.

Ours: backbone weights are timm's or a file's; AVSS batches hold clips of one length, where the published code pads 5 s
to 10 s with black; AVSS frames are squeezed to a square in training too, where the published code crops the middle.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from avs_core.audio import Alignment
from avs_core.datasets.labelled import LabelledSet, Setting
from avs_core.errors import ConfigError
from avs_core.models.bundle import AVSS_CLASSES, IMAGENET_MEAN, IMAGENET_STD, BundleConfig, save_bundle
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.training.composites import labelled_share
from avs_core.training.feed import FeedConfig, LabelledBatches
from avs_core.training.held_out import HeldOut
from avs_core.training.initialise import load_backbone, load_vggish, start_from
from avs_core.training.job import TrainingJob
from avs_core.training.loop import LoopConfig
from avs_core.training.materials import Materials
from avs_core.training.network import Normalisation, TPAVITrainee, Trainee
from avs_core.training.objectives import Objective
from avs_core.training.recipe_job import RecipeJob

PUBLISHED_INPUT = Normalisation(IMAGENET_MEAN, IMAGENET_STD)
THRESHOLD = 0.5
ALIGNMENT: Alignment = "official"
_SECONDS: dict[Setting, int] = {"s4": 5, "ms3": 5, "avss": 10}


@dataclass(frozen=True)
class PublishedRecipe:
    """One row of the paper's tables.

    from_s4  starts from the weights of an S4 run instead of ImageNet's
    """

    name: str
    about: str
    setting: Setting
    backbone: Literal["pvt_v2_b5", "resnet50"]
    epochs: int
    objective: Objective
    from_s4: bool = False
    feed: FeedConfig = field(default_factory=FeedConfig)

    @property
    def net(self) -> TPAVIConfig:
        """The published net of the setting."""
        semantic = self.setting == "avss"
        classes = AVSS_CLASSES if semantic else 1
        return TPAVIConfig(backbone=self.backbone, audio_bias=not semantic, classes=classes)

    @property
    def composes(self) -> bool:
        """It trains on AVSBench alone."""
        return False

    def jobs(self, materials: Materials) -> tuple[TrainingJob, ...]:
        """One phase. Raises ConfigError for data of another setting, or weights that are missing or not wanted."""
        data = self._data(materials)
        if materials.vggish is None:
            raise ConfigError(f"{self.name} hears with VGGish: give its weights, --vggish FILE")
        materials.refuse(self.name, "audio", "ear", "backbone" if self.from_s4 else "init")
        if self.from_s4 and materials.init is None:
            raise ConfigError(f"{self.name} starts from an S4 run: give its bundle or .pth, --init")
        feed = replace(self.feed, seed=materials.seed)
        epoch = LabelledBatches(data, "train", feed).epoch_steps
        steps = materials.steps or self.epochs * epoch
        loop = published_loop(steps, epoch, materials.seed)
        job = RecipeJob(
            name=self.name,
            loop=loop,
            build=partial(new_trainee, self, materials),
            share=partial(labelled_share, data, feed),
            objective=self.objective,
            held_out=HeldOut(data, feed.size, ALIGNMENT, _SECONDS[self.setting]),
            leave=partial(leave_bundle, self),
            workers=materials.workers,
        )
        return (job,)

    def _data(self, materials: Materials) -> LabelledSet:
        data = materials.labelled(self.name)
        if data.setting != self.setting:
            raise ConfigError(f"{self.name} trains on {self.setting} data; {data.name} is {data.setting}: see --kind")
        return data


def published_loop(steps: int, epoch: int, seed: int) -> LoopConfig:
    """Plain Adam, in float32, with a look at the validation split after each epoch."""
    return LoopConfig(
        steps=steps,
        lr=1e-4,
        weight_decay=0,
        optimiser="adam",
        schedule="constant",
        warm_up=0,
        clip_norm=None,
        ema=0,
        precision="fp32",
        checkpoint_every=epoch,
        validate_every=epoch,
        seed=seed,
    )


def new_trainee(recipe: PublishedRecipe, materials: Materials) -> Trainee:
    """The net before its first step. Raises CheckpointMismatch, BundleError."""
    torch.manual_seed(materials.seed)
    net = TPAVINet(recipe.net, pretrained=materials.backbone is None and materials.init is None)
    if materials.init is not None:
        start_from(net, materials.init)
    elif materials.backbone is not None:
        load_backbone(net.backbone.body, materials.backbone)
    assert materials.vggish is not None, "jobs() has asked for it"
    return TPAVITrainee(net, load_vggish(materials.vggish), PUBLISHED_INPUT, None, frozen="audio_encoder")


def leave_bundle(recipe: PublishedRecipe, trainee: Trainee, held_out: HeldOut, out: Path) -> Path:
    """bundle/ with the figure of the validation split; the test split is measured by `avs evaluate`."""
    data, metrics = held_out.data, held_out.validate(trainee)
    config = BundleConfig(
        name=recipe.name,
        tpavi=recipe.net,
        audio_encoder="vggish",
        size=held_out.size,
        alignment=ALIGNMENT,
        window_s=held_out.window_s,
        threshold=THRESHOLD,
        trained_on=f"{recipe.about}, on {data.name}",
        metrics={f"val_{name}": round(value, 4) for name, value in metrics.items()},
        limits="Trained as published; what the paper says of its data and its figures holds for it.",
    )
    folder, semantic = out / "bundle", recipe.setting == "avss"
    categories = data.categories if semantic else ()
    save_bundle(folder, config, trainee.net, trainee.audio_encoder, _card(config, data), categories)
    return folder


def _card(config: BundleConfig, data: LabelledSet) -> str:
    rows = "\n".join(f"| {name} | {value:g} |" for name, value in config.metrics.items())
    return f"""# {config.name}

{config.trained_on} (version {data.version}).

    avs train {config.name} --data URI --vggish FILE --out DIR

| figure | value |
|---|---|
{rows}

`val_miou` chose the epoch. Figures of the test split: `avs evaluate`.

## What it can't do

{config.limits}
"""
