"""Our own runs on composites, on disk or made on the fly: the sound alone, then all together, then the figures."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import Dataset

from avs_core.audio import LOG_MEL, FrontEnd
from avs_core.datasets.composed import ComposedSet
from avs_core.datasets.labelled import LabelledSet, heard_by
from avs_core.datasets.sources import Sources, Split
from avs_core.errors import ConfigError
from avs_core.models.bundle import (
    BundleConfig,
    build_audio_encoder,
    load_bundle,
    save_bundle,
)
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.training.card import LIMITS, card, figures, origin, tpavi_net
from avs_core.training.data import Batch, CompositeBatches, SoundBatches, StreamConfig
from avs_core.training.feed import FeedConfig, LabelledBatches
from avs_core.training.held_out import HeldOut
from avs_core.training.initialise import LITE0_INPUT, load_lite0, open_hearing
from avs_core.training.job import TrainingJob
from avs_core.training.loop import LoopConfig
from avs_core.training.materials import Materials
from avs_core.training.network import TPAVITrainee, Trainee
from avs_core.training.objectives import LightObjective, SoundObjective
from avs_core.training.recipe_job import RecipeJob, Share
from avs_core.training.swaps import SwapBatches


@dataclass(frozen=True)
class LightRecipe:
    """A small net on composites: first its audio encoder alone (`sound`), then all but the backbone (`joint`).

    With data it trains on their clips, else on composites made on the fly. The sound of these is also what the audio
    encoder learns from; with data alone it learns from theirs. Or it starts as that of a bundle, and goes on learning.

    stream, sound_stream   composites on the fly; feed, sound_feed  clips from files
    audio_encoder          a name, see avs_core.models.audio_encoders; a bundle to start from has the same
    hearing                how loud the sound is in TPAVI at the start, see `open_hearing`
    pairs                  each picture on the fly comes with two sounds, see `swaps`
    bundle_size, window_s  side of the pictures in pixels and seconds at a time, in the bundle
    val_clips, test_clips  composites on the fly that choose the threshold, and that are reported
    """

    name: str
    about: str
    net: TPAVIConfig
    stream: StreamConfig
    sound_stream: StreamConfig
    feed: FeedConfig
    sound_feed: FeedConfig
    sound: LoopConfig
    joint: LoopConfig
    objective: LightObjective
    audio_encoder: str = "audio_cnn"
    hearing: float = 4.0
    pairs: bool = False
    bundle_size: int = 320
    window_s: int = 5
    val_clips: int = 30
    test_clips: int = 100

    @property
    def composes(self) -> bool:
        """Where it gets no data."""
        return True

    def jobs(self, materials: Materials) -> tuple[TrainingJob, ...]:
        """See Recipe. Raises ConfigError for weights that it does not read, and for those of another audio encoder."""
        materials.refuse(self.name, "vggish", "backbone", "init", "ear")
        materials.require_ear(self.name, self.audio_encoder)
        categories = len(categories_of(self.name, materials))
        build = partial(new_trainee, self, categories, materials.seed, materials.audio)
        steps = {} if materials.steps is None else {"steps": materials.steps}
        held_out = held_out_of(self.name, materials, self.bundle_size, self.window_s, self.val_clips, self.test_clips)
        leave = partial(leave_bundle, self, materials)
        # Two orders of clips from one seed.
        sound = self.sound.model_copy(update={"seed": materials.seed + 1})
        joint = self.joint.model_copy(update={"seed": materials.seed} | steps)
        job = partial(RecipeJob, build=build, workers=materials.workers)
        last = job(
            name="joint",
            loop=joint,
            share=self._share(materials, joint.steps),
            objective=self.objective,
            held_out=held_out,
            leave=leave,
        )
        if materials.audio is not None:
            return (last,)
        hearing = share_of_sound(self.name, materials, self.sound_feed, self.sound_stream, sound.steps)
        return job(name="sound", loop=sound, share=hearing, objective=SoundObjective(), sees=False), last

    def _share(self, materials: Materials, steps: int) -> Share:
        if not self.pairs:
            return share_of(self.name, materials, self.feed, self.stream, steps)
        if materials.data is not None:
            raise ConfigError(f"{self.name} gives its pictures other sounds, which files do not have: leave out --data")
        return partial(pair_share, photographs(self.name, materials), replace(self.stream, seed=materials.seed), steps)


def categories_of(name: str, materials: Materials) -> tuple[str, ...]:
    """What things are called in the data, or in the composites that stand for them. Raises ConfigError."""
    if materials.data is not None:
        return materials.data.categories
    return tuple(photographs(name, materials).categories)


def share_of(
    name: str,
    materials: Materials,
    feed: FeedConfig,
    stream: StreamConfig,
    steps: int,
    front_end: FrontEnd = LOG_MEL,
) -> Share:
    """Clips of the data, or composites that stand for them, heard through the front end. Raises ConfigError."""
    if materials.data is not None:
        return partial(labelled_share, materials.data, replace(feed, seed=materials.seed))
    own = replace(stream, seed=materials.seed)
    return partial(composite_share, photographs(name, materials), own, steps, front_end=front_end)


def share_of_sound(name: str, materials: Materials, feed: FeedConfig, stream: StreamConfig, steps: int) -> Share:
    """The sound of composites where there are sources, else that of the data; in another order. Raises ConfigError."""
    seed = materials.seed + 1
    if materials.sources is None and materials.data is not None:
        return partial(labelled_share, materials.data, replace(feed, seed=seed))
    return partial(sound_share, photographs(name, materials), replace(stream, seed=seed), steps)


def held_out_of(
    name: str,
    materials: Materials,
    size: int,
    window_s: int,
    val_clips: int,
    test_clips: int,
    front_end: FrontEnd = LOG_MEL,
) -> HeldOut:
    """The data's own splits, or as many composites as are said, heard through the front end. Raises ConfigError."""
    data = materials.data
    if data is None:
        sizes: dict[Split, int] = {"val": val_clips, "test": test_clips}
        data = heard_by(ComposedSet(photographs(name, materials), sizes, window_s), front_end)
    return HeldOut(data, size, "aligned", window_s)


def photographs(name: str, materials: Materials) -> Sources:
    """What composites are made of. Raises ConfigError where there is nothing."""
    if materials.sources is None:
        raise ConfigError(f"{name} makes composites from photographs and recordings: give it those, or labelled data")
    return materials.sources


def new_trainee(recipe: LightRecipe, categories: int, seed: int, audio: str | None) -> Trainee:
    """Untrained but for the backbone, which is frozen, and for the audio encoder: it starts as that of `audio`.

    Raises BundleError.
    """
    torch.manual_seed(seed)
    net, encoder = TPAVINet(recipe.net), build_audio_encoder(recipe.audio_encoder)
    load_lite0(net.backbone.body)
    open_hearing(net, recipe.hearing)
    if audio is not None:
        encoder = load_bundle(audio).audio_encoder
    return TPAVITrainee(net, encoder, LITE0_INPUT, categories)


def labelled_share(data: LabelledSet, feed: FeedConfig, rank: int, world: int) -> Dataset[Batch]:
    """Clips from files."""
    return LabelledBatches(data, "train", feed, rank, world)


def composite_share(
    sources: Sources, config: StreamConfig, steps: int, rank: int, world: int, front_end: FrontEnd = LOG_MEL
) -> Dataset[Batch]:
    """Composites on the fly."""
    return CompositeBatches(sources, "train", config, steps, rank, world, front_end)


def pair_share(
    sources: Sources, config: StreamConfig, steps: int, rank: int, world: int, front_end: FrontEnd = LOG_MEL
) -> Dataset[Batch]:
    """Composites on the fly, each with two sounds."""
    return SwapBatches(sources, "train", config, steps, rank, world, front_end)


def sound_share(sources: Sources, config: StreamConfig, steps: int, rank: int, world: int) -> Dataset[Batch]:
    """Their sound alone."""
    return SoundBatches(sources, "train", config, steps, rank, world)


def leave_bundle(recipe: LightRecipe, materials: Materials, trainee: Trainee, held_out: HeldOut, out: Path) -> Path:
    """Choose the threshold on val, measure what is shipped on test, write bundle/ with its card."""
    data = None if materials.data is None else materials.data.name
    threshold = held_out.measure(trainee, "val").best_threshold()
    config = BundleConfig(
        name=recipe.name,
        tpavi=recipe.net,
        audio_encoder=recipe.audio_encoder,
        size=recipe.bundle_size,
        mean=LITE0_INPUT.mean,
        std=LITE0_INPUT.std,
        alignment=held_out.alignment,
        window_s=recipe.window_s,
        threshold=threshold,
        stored_as="fp32",
        trained_on=recipe.about if data is None else f"{recipe.about}, on {data}",
        metrics=figures(held_out.measure(trainee, "test"), threshold),
        limits=LIMITS,
    )
    folder = out / "bundle"
    save_bundle(
        folder, config, trainee.net, trainee.audio_encoder, card(config, tpavi_net(config), _how(recipe, materials))
    )
    return folder


def _how(recipe: LightRecipe, materials: Materials) -> str:
    """The training in Markdown, for the card."""
    feed, stream = recipe.feed, recipe.stream
    steps = materials.steps or recipe.joint.steps
    if materials.audio is not None:
        hearing = f"The audio encoder starts as that of {materials.audio}."
    else:
        sound = recipe.sound_stream
        hearing = f"First the audio encoder alone: {recipe.sound.steps} steps of {sound.clips} × {sound.frames} s."
    if materials.data is None:
        sounds = " × 2 sounds" if recipe.pairs else ""
        clips = f"{steps} steps of {stream.clips} clips{sounds} × {stream.frames} frames at {stream.size} pixels"
        flag = ""
    else:
        clips = f"{steps} steps of {feed.clips} clips × {feed.seconds} frames at {feed.size} pixels"
        flag = " --data URI"
    return f"""{origin(materials.data)}
{hearing}
Then all but the frozen backbone: {clips}. Seed {materials.seed}.

    avs train {recipe.name}{flag} --out DIR"""
