"""A training run on composites from start to bundle: the sound alone, then all together, then the figures."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch.utils.data import Dataset

from avs_core.datasets.composites import Composer, ComposerConfig
from avs_core.datasets.sources import Sources, Split
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import Bundle, BundleConfig, load_bundle, save_bundle
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.training.card import LIMITS, card, figures
from avs_core.training.data import Batch, CompositeBatches, SoundBatches, StreamConfig, stream
from avs_core.training.evaluation import Evaluation, bundle_predict, evaluate
from avs_core.training.initialise import LITE0_INPUT, load_lite0
from avs_core.training.loop import AVERAGE, LoopConfig, Loss, Trainer
from avs_core.training.network import Objective, Trainee

LOG = logging.getLogger(__name__)

HELD_OUT_SEED = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """A training run on composites: first the audio encoder alone (`sound`), then all together (`joint`).

    bundle_size, window_s  side of the pictures in pixels and seconds at a time, in the bundle
    val_clips, test_clips  held-out composites that choose the threshold, and that are reported
    """

    name: str
    about: str
    net: TPAVIConfig
    stream: StreamConfig
    sound_stream: StreamConfig
    sound: LoopConfig
    joint: LoopConfig
    objective: Objective
    seed: int = 0
    bundle_size: int = 192
    window_s: int = 5
    val_clips: int = 30
    test_clips: int = 100


def train_recipe(recipe: Recipe, sources: Sources, out: Path, threads: int, workers: int = 1) -> Path:
    """Train, evaluate and write the bundle into `out`/bundle; goes on from the checkpoints in `out`."""
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    trainee = new_trainee(recipe, sources)
    # Two streams of clips from one seed.
    sound, joint = replace(recipe.sound_stream, seed=recipe.seed + 1), replace(recipe.stream, seed=recipe.seed)
    _phase(
        Trainer(trainee, recipe.sound),
        lambda length: SoundBatches(sources, "train", sound, length),
        lambda batch: recipe.objective.sounds(trainee, batch),
        out / "sound",
        workers,
    )
    _phase(
        Trainer(trainee, recipe.joint),
        lambda length: CompositeBatches(sources, "train", joint, length),
        lambda batch: recipe.objective.masks(trainee, batch),
        out / "joint",
        workers,
    )
    return write_bundle(recipe, trainee, sources, out)


def new_trainee(recipe: Recipe, sources: Sources) -> Trainee:
    """Untrained but for the backbone."""
    net = TPAVINet(recipe.net)
    load_lite0(net.backbone.body)
    return Trainee(net, AudioCNN(), len(sources.categories), LITE0_INPUT)


def _phase(trainer: Trainer, batches: Callable[[int], Dataset[Batch]], loss: Loss, folder: Path, workers: int) -> None:
    """Train to the end from wherever the folder's checkpoint stands; leave the mean weights in the model."""
    steps = trainer.config.steps
    if trainer.resume(folder):
        LOG.info("%s: resumed at step %d of %d", folder.name, trainer.step, steps)
    if trainer.step < steps:
        data = stream(batches(steps), trainer.step, steps, workers)
        trainer.fit(data, loss, folder, _logger(folder, steps))
    trainer.model.load_state_dict(trainer.average)


def _logger(folder: Path, steps: int, every: int = 20) -> Callable[[int, Mapping[str, float]], None]:
    """Logs the means over some steps."""
    seen: list[Mapping[str, float]] = []
    started = time.monotonic()

    def on_step(step: int, terms: Mapping[str, float]) -> None:
        seen.append(terms)
        if len(seen) == every:
            means = {name: round(sum(term[name] for term in seen) / every, 4) for name in terms}
            LOG.info("%s %d/%d %s %.0f s", folder.name, step + 1, steps, means, time.monotonic() - started)
            seen.clear()

    return on_step


def write_bundle(recipe: Recipe, trainee: Trainee, sources: Sources, out: Path) -> Path:
    """Choose the threshold on val, measure what is shipped on test, write bundle/ with its card."""
    folder = out / "bundle"
    config = BundleConfig(
        name=recipe.name,
        tpavi=recipe.net,
        audio_encoder="audio_cnn",
        size=recipe.bundle_size,
        mean=LITE0_INPUT.mean,
        std=LITE0_INPUT.std,
        window_s=recipe.window_s,
        stored_as="fp32",
        trained_on=recipe.about,
        limits=LIMITS,
    )

    def save(config: BundleConfig) -> Bundle:
        save_bundle(folder, config, trainee.net, trainee.audio_encoder, card(config, _how(recipe)))
        return load_bundle(folder)

    threshold = held_out(save(config), sources, "val", recipe.val_clips).best_threshold()
    config = config.model_copy(update={"threshold": threshold})
    metrics = figures(held_out(save(config), sources, "test", recipe.test_clips), threshold)
    save(config.model_copy(update={"metrics": metrics}))
    return folder


def held_out(bundle: Bundle, sources: Sources, split: Split, clips: int) -> Evaluation:
    """Score a bundle, as it will be used, on composites whose sources it has not seen."""
    composer = Composer(sources, split, ComposerConfig(size=bundle.config.size))
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + clips)
    return evaluate(bundle_predict(bundle), composer, seeds, bundle.config.window_s)


def _how(recipe: Recipe) -> str:
    """The training in Markdown, for the card."""
    sound, joint = recipe.sound_stream, recipe.stream
    return f"""Composites made on the fly from photographs and recordings in Debian packages, listed one by one in
`avs_core/datasets/catalogue.json`; sources of the validation and test splits are in no training clip.
First the audio encoder alone: {recipe.sound.steps} steps of {sound.clips} × {sound.frames} s. Then all but the frozen
backbone: {recipe.joint.steps} steps of {joint.clips} clips × {joint.frames} frames at {joint.size} pixels.
Seed {recipe.seed}.

    python -m jobs.train {recipe.name} --out DIR"""


def load_trained(recipe: Recipe, sources: Sources, out: Path) -> Trainee:
    """The trainee with the mean weights of its last joint checkpoint."""
    trainee = new_trainee(recipe, sources)
    trainee.load_state_dict(safetensors.torch.load_file(out / "joint" / AVERAGE))
    return trainee
