"""The two-stage baseline in training: what stage 1 is told, what learns in which stage, and a whole run, tiny."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avs_core.datasets.composed import ComposedSet
from avs_core.datasets.sources import Sources
from avs_core.errors import ConfigError
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import load_bundle
from avs_core.models.two_stage import TwoStageNet
from avs_core.recipes import INSTANCES, LIGHT, TWO_STAGE, TWO_STAGE_COCO
from avs_core.tracking import NullRun
from avs_core.training.card import figures
from avs_core.training.data import OBJECTS, Batch, CompositeBatches, StreamConfig
from avs_core.training.engine import Alone
from avs_core.training.held_out import HeldOut
from avs_core.training.initialise import LITE0_INPUT
from avs_core.training.materials import Materials
from avs_core.training.network import Normalisation
from avs_core.training.objectives import LightObjective, Objective
from avs_core.training.train import Trained, train
from avs_core.training.two_stage import InstanceObjective, Stage, TwoStageTrainee, targets
from tests.models.two_stage_sample import TINY

STREAM = StreamConfig(size=64, clips=3, frames=1, hushed=0.0, foreign=0.0, apart=False)

RECIPE = replace(
    TWO_STAGE,
    name="tiny",
    about="A test",
    net=TINY,
    seen=replace(STREAM, clips=2),
    stream=replace(STREAM, clips=1, frames=2),
    sound_stream=replace(TWO_STAGE.sound_stream, clips=1),
    sound=TWO_STAGE.sound.model_copy(update={"steps": 2}),
    instances=INSTANCES.sight.model_copy(update={"steps": 3, "warm_up": 1}),
    fusion=TWO_STAGE.fusion.model_copy(update={"steps": 2, "warm_up": 1}),
    bundle_size=64,
    val_clips=2,
    test_clips=2,
)


def tiny(categories: int, stage: Stage) -> TwoStageTrainee:
    torch.manual_seed(0)
    return TwoStageTrainee(TwoStageNet(TINY), AudioCNN(), LITE0_INPUT, categories, stage)


@pytest.fixture(scope="module")
def batch(tiny_sources: Sources) -> Batch:
    return CompositeBatches(tiny_sources, "train", STREAM, 10)[0]


def moved(trainee: TwoStageTrainee, objective: Objective, batch: Batch, steps: int) -> tuple[set[str], list[float]]:
    """What a few steps change, buffers included, and the losses."""
    before = {name: value.clone() for name, value in trainee.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in trainee.parameters() if p.requires_grad], 2e-3)
    trainee.train()
    losses = []
    for step in range(steps):
        torch.manual_seed(step)  # Mask R-CNN draws the regions that it learns from
        loss = torch.stack(list(objective(trainee(batch.frames, batch.sound), batch).values())).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimiser.step()
        losses.append(float(loss.detach()))
    return {name for name, value in trainee.state_dict().items() if not torch.equal(value, before[name])}, losses


def test_stage_1_moves_mask_rcnn_alone_and_not_its_backbone(tiny_sources: Sources, batch: Batch) -> None:
    changed, losses = moved(tiny(len(tiny_sources.categories), "instances"), InstanceObjective(), batch, steps=20)
    parts = {"backbone.fpn", "rpn.head", "roi_heads.box_head", "roi_heads.box_predictor", "roi_heads.mask_head"}
    parts.add("roi_heads.mask_predictor")
    assert {".".join(name.split(".")[2:4]) for name in changed} == parts
    assert all(name.startswith("net.detector.") for name in changed)
    assert losses[-1] < 0.75 * losses[0]


def test_stage_2_leaves_mask_rcnn_alone(tiny_sources: Sources, batch: Batch) -> None:
    changed, losses = moved(tiny(len(tiny_sources.categories), "fusion"), LightObjective(), batch, steps=15)
    top = {name.split(".")[0] if not name.startswith("net.") else ".".join(name.split(".")[:2]) for name in changed}
    assert top == {"net.neck", "net.fusion", "net.decoder", "net.head", "audio_encoder", "namer", "viewer"}
    assert losses[-1] < 0.75 * losses[0]


def test_stage_2_looks_at_what_a_trained_net_would_see(tiny_sources: Sources, batch: Batch) -> None:
    trainee = tiny(len(tiny_sources.categories), "fusion")
    frames = LITE0_INPUT(batch.frames)
    in_training, at_work = (trainee.train(mode).net.look(frames).instances for mode in (True, False))
    assert torch.equal(in_training, at_work)


def test_without_frames_either_stage_names_what_it_hears(tiny_sources: Sources, batch: Batch) -> None:
    heard = [tiny(len(tiny_sources.categories), stage).eval()(None, batch.sound) for stage in ("instances", "fusion")]
    assert heard[0].masks is None
    assert heard[0].named is not None
    assert torch.equal(heard[0].named, heard[1].named)


def test_stage_1_is_told_of_every_object_where_a_loop_finds_it(batch: Batch) -> None:
    assert batch.outlines is not None
    for outline, target in zip(batch.outlines[:, 0], targets(batch), strict=True):
        numbers = [n for n in range(1, OBJECTS + 1) if (outline == n).float().mean() > 0.002]
        assert len(target.boxes) == len(target.masks) == len(numbers)
        assert target.labels.tolist() == [1] * len(numbers)
        for n, box, mask in zip(numbers, target.boxes, target.masks, strict=True):
            spots = [(y, x) for y in range(64) for x in range(64) if outline[y, x] == n]
            ys, xs = [y for y, _ in spots], [x for _, x in spots]
            assert box.tolist() == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
            assert torch.equal(mask.bool(), outline == n)


def test_data_without_objects_is_refused(batch: Batch) -> None:
    with pytest.raises(ConfigError, match="does not tell them apart"):
        targets(replace(batch, outlines=None, kinds=None))


def test_its_recipe_has_the_data_the_backbone_and_the_budget_of_the_others() -> None:
    assert (TWO_STAGE.net.backbone, TWO_STAGE.net.finest) == (LIGHT.net.backbone, LIGHT.net.finest)
    assert (TWO_STAGE.stream, TWO_STAGE.feed, TWO_STAGE.fusion) == (LIGHT.stream, LIGHT.feed, LIGHT.joint)
    assert (TWO_STAGE.sound_stream, TWO_STAGE.sound_feed, TWO_STAGE.sound) == (
        LIGHT.sound_stream,
        LIGHT.sound_feed,
        LIGHT.sound,
    )
    assert (TWO_STAGE.seen, TWO_STAGE.seen_feed, TWO_STAGE.instances) == (
        INSTANCES.seen,
        INSTANCES.seen_feed,
        INSTANCES.sight,
    )
    assert TWO_STAGE.objective == LIGHT.objective


def test_with_a_file_of_mask_rcnn_there_is_no_stage_1_and_without_one_no_init(tiny_sources: Sources) -> None:
    given: dict[str, Any] = {"sources": tiny_sources, "init": "coco.pth"}
    assert [job.name for job in TWO_STAGE_COCO.jobs(Materials(**given))] == ["sound", "fusion"]
    assert [job.name for job in TWO_STAGE_COCO.jobs(Materials(**given, audio="tpavi-light"))] == ["fusion"]
    with pytest.raises(ConfigError, match="from a file of torchvision's weights: give it, --init"):
        TWO_STAGE_COCO.jobs(Materials(sources=tiny_sources))
    with pytest.raises(ConfigError, match="two-stage-light takes no --init"):
        TWO_STAGE.jobs(Materials(**given))


def test_an_audio_encoder_of_another_kind_is_refused_before_anything_runs(tiny_sources: Sources) -> None:
    with pytest.raises(ConfigError, match="two-stage-light hears with audio_cnn, instances-light with yamnet"):
        TWO_STAGE.jobs(Materials(sources=tiny_sources, audio="instances-light"))


def test_an_audio_encoder_from_a_bundle_is_a_start(tiny_sources: Sources) -> None:
    jobs = RECIPE.jobs(Materials(sources=tiny_sources, audio="tpavi-light"))
    assert [job.name for job in jobs] == ["instances", "fusion"]
    encoder, theirs = jobs[1].model().audio_encoder, load_bundle("tpavi-light").audio_encoder.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in encoder.state_dict().items())
    assert all(p.requires_grad for p in encoder.parameters()), "it goes on learning"


def test_it_learns_from_labelled_clips_too(tiny_sources: Sources) -> None:
    data = ComposedSet(tiny_sources, {"train": 4, "val": 1, "test": 1}, seconds=3)
    small = {"size": 64, "clips": 2}
    recipe = replace(RECIPE, seen_feed=replace(RECIPE.seen_feed, **small), feed=replace(RECIPE.feed, **small))
    for job in recipe.jobs(Materials(data=data, workers=0)):
        terms = job.loss(job.model().train(), next(iter(job.batches(0, 0, 1))))
        assert all(bool(torch.isfinite(term)) for term in terms.values())


@pytest.fixture(scope="module")
def done(tiny_sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tiny_sources, tmp_path_factory.mktemp("trained"))


def trained(sources: Sources, out: Path) -> Trained:
    weights, last, names = None, None, []
    for job in RECIPE.jobs(Materials(sources=sources, workers=0)):
        last = train(job, Alone("cpu"), str(out), NullRun(), out, weights)
        weights, names = last.weights, [*names, last.name]
    assert names == ["sound", "instances", "fusion"]
    assert last is not None
    return last


def test_the_bundle_is_what_was_measured(done: Trained, tiny_sources: Sources) -> None:
    assert done.left is not None
    bundle = load_bundle(done.left)
    config = bundle.config
    assert (config.arch, config.two_stage, bundle.categories) == ("two_stage", TINY, ())
    assert isinstance(bundle.net, TwoStageNet)
    shipped = TwoStageTrainee(bundle.net, bundle.audio_encoder, Normalisation(config.mean, config.std), None).eval()
    data = ComposedSet(tiny_sources, {"val": RECIPE.val_clips, "test": RECIPE.test_clips}, config.window_s)
    held_out = HeldOut(data, config.size, config.alignment, config.window_s)
    assert config.metrics == figures(held_out.measure(shipped, "test"), config.threshold)


def test_the_same_seed_gives_the_same_weights(done: Trained, tiny_sources: Sources, tmp_path: Path) -> None:
    again = trained(tiny_sources, tmp_path)
    assert done.left is not None
    assert again.left is not None
    assert load_bundle(again.left).weights_sha256 == load_bundle(done.left).weights_sha256


def test_the_card_says_how_it_was_made_and_measured(done: Trained) -> None:
    assert done.left is not None
    text, config = (done.left / "card.md").read_text(), load_bundle(done.left).config
    assert "avs train tiny --out DIR" in text
    assert "torchvision's Mask R-CNN on tf_efficientnet_lite0" in text
    assert "3 steps of 2 pictures" in text
    assert "the fusion, with Mask R-CNN frozen: 2 steps of 1 clips × 2 frames" in text
    assert f"| miou | {config.metrics['miou']:g} |" in text
