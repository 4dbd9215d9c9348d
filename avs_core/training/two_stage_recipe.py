"""Our runs of paper 1's two-stage baseline on composites: the sound alone, where things are, which of them is heard."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from avs_core.errors import ConfigError
from avs_core.models.bundle import (
    BundleConfig,
    build_audio_encoder,
    load_bundle,
    save_bundle,
)
from avs_core.models.two_stage import TwoStageConfig, TwoStageNet
from avs_core.training.card import LITE0_START, card, figures, origin, two_stage_net
from avs_core.training.composites import categories_of, held_out_of, share_of, share_of_sound
from avs_core.training.data import StreamConfig
from avs_core.training.feed import FeedConfig
from avs_core.training.held_out import HeldOut
from avs_core.training.initialise import LITE0_INPUT, load_lite0, load_mask_rcnn
from avs_core.training.job import TrainingJob
from avs_core.training.loop import LoopConfig
from avs_core.training.materials import Materials
from avs_core.training.network import Normalisation, Trainee
from avs_core.training.objectives import LightObjective, SoundObjective
from avs_core.training.recipe_job import RecipeJob
from avs_core.training.two_stage import InstanceObjective, Stage, TwoStageTrainee

LIMITS = (
    "It knows the things and sounds of about 60 kinds from 135 cut-outs and 111 recordings, and was trained and "
    "measured on composites of such: it has seen no real video with sound. What its first stage misses its second one "
    "must find alone. It lights one region, without names or instances."
)


@dataclass(frozen=True)
class TwoStageRecipe:
    """First the audio encoder alone (`sound`), then Mask R-CNN alone (`instances`), then what joins them (`fusion`).

    With data it trains on their clips, else on composites made on the fly.

    seen, stream, sound_stream  composites on the fly of the three phases; seen_feed, feed, sound_feed  clips from files
    instances                   None = Mask R-CNN comes from a file of torchvision's weights, --init, and stays as it is
    normalise                   the pictures, as the backbone's weights want them
    bundle_size, window_s       side of the pictures in pixels and seconds at a time, in the bundle
    val_clips, test_clips       composites on the fly that choose the threshold, and that are reported
    """

    name: str
    about: str
    net: TwoStageConfig
    seen: StreamConfig
    stream: StreamConfig
    sound_stream: StreamConfig
    seen_feed: FeedConfig
    feed: FeedConfig
    sound_feed: FeedConfig
    sound: LoopConfig
    instances: LoopConfig | None
    fusion: LoopConfig
    objective: LightObjective
    normalise: Normalisation = LITE0_INPUT
    audio_encoder: str = "audio_cnn"
    bundle_size: int = 320
    window_s: int = 5
    val_clips: int = 30
    test_clips: int = 100

    @property
    def composes(self) -> bool:
        """Where it gets no data."""
        return True

    def jobs(self, materials: Materials) -> tuple[TrainingJob, ...]:
        """See Recipe. `materials.steps` are those of each stage; the audio encoder has its own before them.

        Raises ConfigError for weights that it does not read or lacks, and for those of another audio encoder.
        """
        materials.refuse(self.name, "vggish", "backbone", "ear")
        materials.require_ear(self.name, self.audio_encoder)
        self._require_init(materials)
        sound = () if materials.audio is not None else (self._sound(materials),)
        instances = () if self.instances is None else (self._instances(materials, self.instances),)
        return (*sound, *instances, self._fusion(materials))

    def _require_init(self, materials: Materials) -> None:
        if self.instances is not None:
            materials.refuse(self.name, "init")
        elif materials.init is None:
            raise ConfigError(f"{self.name} takes Mask R-CNN from a file of torchvision's weights: give it, --init")

    def _sound(self, materials: Materials) -> RecipeJob:
        # Two orders of clips from one seed.
        loop = self.sound.model_copy(update={"seed": materials.seed + 1})
        return RecipeJob(
            name="sound",
            loop=loop,
            build=self._build(materials, "fusion"),
            share=share_of_sound(self.name, materials, self.sound_feed, self.sound_stream, loop.steps),
            objective=SoundObjective(),
            sees=False,
            workers=materials.workers,
        )

    def _instances(self, materials: Materials, loop: LoopConfig) -> RecipeJob:
        loop = _timed(loop, materials)
        return RecipeJob(
            name="instances",
            loop=loop,
            build=self._build(materials, "instances"),
            share=share_of(self.name, materials, self.seen_feed, self.seen, loop.steps),
            objective=InstanceObjective(),
            workers=materials.workers,
        )

    def _fusion(self, materials: Materials) -> RecipeJob:
        loop = _timed(self.fusion, materials)
        return RecipeJob(
            name="fusion",
            loop=loop,
            build=self._build(materials, "fusion"),
            share=share_of(self.name, materials, self.feed, self.stream, loop.steps),
            objective=self.objective,
            held_out=held_out_of(
                self.name, materials, self.bundle_size, self.window_s, self.val_clips, self.test_clips
            ),
            leave=partial(leave_bundle, self, materials),
            workers=materials.workers,
        )

    def _build(self, materials: Materials, stage: Stage) -> "partial[TwoStageTrainee]":
        return partial(new_trainee, self, len(categories_of(self.name, materials)), materials, stage)


def _timed(loop: LoopConfig, materials: Materials) -> LoopConfig:
    steps = {} if materials.steps is None else {"steps": materials.steps}
    return loop.model_copy(update={"seed": materials.seed} | steps)


def new_trainee(recipe: TwoStageRecipe, categories: int, materials: Materials, stage: Stage) -> TwoStageTrainee:
    """Untrained but for the backbone, or all of Mask R-CNN, and for the audio encoder: it starts as a named bundle's.

    Raises BundleError, CheckpointMismatch.
    """
    torch.manual_seed(materials.seed)
    net, encoder = TwoStageNet(recipe.net), build_audio_encoder(recipe.audio_encoder)
    if materials.init is not None:
        load_mask_rcnn(net.detector, materials.init)
    else:
        load_lite0(net.backbone.body)
    if materials.audio is not None:
        encoder = load_bundle(materials.audio).audio_encoder
    return TwoStageTrainee(net, encoder, recipe.normalise, categories, stage)


def leave_bundle(recipe: TwoStageRecipe, materials: Materials, trainee: Trainee, held_out: HeldOut, out: Path) -> Path:
    """Choose the threshold on val, measure what is shipped on test, write bundle/ with its card."""
    data = None if materials.data is None else materials.data.name
    threshold = held_out.measure(trainee, "val").best_threshold()
    config = BundleConfig(
        name=recipe.name,
        arch="two_stage",
        two_stage=recipe.net,
        audio_encoder=recipe.audio_encoder,
        size=recipe.bundle_size,
        mean=recipe.normalise.mean,
        std=recipe.normalise.std,
        alignment=held_out.alignment,
        window_s=recipe.window_s,
        threshold=threshold,
        trained_on=recipe.about if data is None else f"{recipe.about}, on {data}",
        metrics=figures(held_out.measure(trainee, "test"), threshold),
        limits=LIMITS,
    )
    start = LITE0_START if materials.init is None else f"Weights of Mask R-CNN: {materials.init}."
    folder, text = out / "bundle", card(config, two_stage_net(config), _how(recipe, materials), start)
    save_bundle(folder, config, trainee.net, trainee.audio_encoder, text)
    return folder


def _how(recipe: TwoStageRecipe, materials: Materials) -> str:
    """The training in Markdown, for the card."""
    data, fusion = materials.data, _timed(recipe.fusion, materials)
    if data is None:
        flags, pictures, clips = "", recipe.seen.clips, f"{recipe.stream.clips} clips × {recipe.stream.frames} frames"
    else:
        flags, pictures = " --data URI", recipe.seen_feed.clips
        clips = f"{recipe.feed.clips} clips × {recipe.feed.seconds} frames"
    hearing = f"The audio encoder starts as that of {materials.audio}."
    if materials.audio is None:
        hearing = f"First the audio encoder alone: {recipe.sound.steps} steps."
    if recipe.instances is None:
        flags, first = f"{flags} --init FILE", "Mask R-CNN stays as its file has it."
    else:
        steps = _timed(recipe.instances, materials).steps
        first = f"Mask R-CNN behind the frozen backbone: {steps} steps of {pictures} pictures."
    return f"""{origin(data)}
{hearing}
{first}
Then the fusion, with Mask R-CNN frozen: {fusion.steps} steps of {clips}. Seed {materials.seed}.

    avs train {recipe.name}{flags} --out DIR"""
