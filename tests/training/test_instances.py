"""What the instance-aware model is given, what learns in which stage, and a whole run, tiny."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avs_core.datasets.sources import Sources
from avs_core.errors import ConfigError, DataError
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import load_bundle
from avs_core.models.correlation import Proposals, correlate
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareNet, Sight
from avs_core.models.vggish import VGGish
from avs_core.query_losses import Given
from avs_core.recipes import INSTANCES, OWN_SOUND
from avs_core.tracking import NullRun
from avs_core.training.data import OBJECTS, Batch, CompositeBatches, StreamConfig, object_labels
from avs_core.training.engine import Alone
from avs_core.training.initialise import LITE0_INPUT
from avs_core.training.instances import (
    CorrelationObjective,
    InstanceTrainee,
    SightObjective,
    Stage,
    Teacher,
    crossed,
    given,
)
from avs_core.training.materials import Materials
from avs_core.training.recipe_job import RecipeJob
from avs_core.training.swaps import SwapBatches
from avs_core.training.train import Trained, train
from tests.training.test_data import with_voices_off_screen

TINY = InstanceAwareConfig(
    backbone="tf_efficientnet_lite0", categories=1, queries=6, learnt=1, channels=16, heads=2, hidden=8, finest=8
)
STREAM = StreamConfig(size=64, clips=3, frames=1, hushed=0.0, foreign=0.0, apart=False)

RECIPE = replace(
    INSTANCES,
    name="tiny",
    about="A test",
    net=TINY,
    audio_encoder="audio_cnn",
    seen=replace(STREAM, clips=2),
    heard=replace(STREAM, clips=1),
    sight=INSTANCES.sight.model_copy(update={"steps": 3, "warm_up": 1}),
    correlation=INSTANCES.correlation.model_copy(update={"steps": 2, "warm_up": 1}),
    bundle_size=64,
    val_clips=2,
    test_clips=2,
)


def tiny(categories: int, stage: Stage) -> InstanceTrainee:
    torch.manual_seed(0)
    net = InstanceAwareNet(TINY.model_copy(update={"categories": categories}))
    return InstanceTrainee(net, AudioCNN(), LITE0_INPUT, stage)


@pytest.fixture(scope="module")
def batch(tiny_sources: Sources) -> Batch:
    return CompositeBatches(tiny_sources, "train", STREAM, 10)[0]


def moved(trainee: InstanceTrainee, objective: Any, batch: Batch, steps: int = 1) -> tuple[set[str], list[float]]:
    """What a few steps change, buffers included, and the losses."""
    before = {name: value.clone() for name, value in trainee.state_dict().items()}
    learned = [p for p in trainee.parameters() if p.requires_grad]
    optimiser, losses = torch.optim.AdamW(learned, 3e-3, weight_decay=0), []
    trainee.train()
    for _ in range(steps):
        loss = torch.stack(list(objective(trainee(batch.frames, batch.sound), batch).values())).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimiser.step()
        losses.append(float(loss.detach()))
    after = trainee.state_dict()
    return {
        name.split(".")[0] + "." + name.split(".")[1] for name in after if not torch.equal(after[name], before[name])
    }, losses


def test_stage_a_leaves_the_backbone_and_the_ear_alone(tiny_sources: Sources, batch: Batch) -> None:
    changed, losses = moved(
        tiny(len(tiny_sources.categories), "sight"), SightObjective("all", "plain"), batch, steps=25
    )
    assert changed == {
        "net.pyramid",
        "net.cells",
        "net.learnt",
        "net.decoder",
        "net.norm",
        "net.classes",
        "net.kernels",
    }
    assert losses[-1] < 0.75 * losses[0]


def test_stage_b_leaves_everything_that_is_seen_alone(tiny_sources: Sources, batch: Batch) -> None:
    changed, losses = moved(tiny(len(tiny_sources.categories), "correlation"), CorrelationObjective(), batch, steps=15)
    assert changed <= {"net.hearing"} | {f"audio_encoder.{part}" for part in ("features", "embedding")}
    assert "net.hearing" in changed
    assert losses[-1] < losses[0]


def test_an_ear_that_was_trained_elsewhere_stays_as_it_is(tiny_sources: Sources, batch: Batch) -> None:
    net = tiny(len(tiny_sources.categories), "correlation").net
    trainee = InstanceTrainee(net, AudioCNN(), LITE0_INPUT, learned=True)
    assert moved(trainee, CorrelationObjective(), batch)[0] == {"net.hearing"}


def test_a_picture_with_several_sounds_is_looked_at_once(tiny_sources: Sources, batch: Batch) -> None:
    trainee = tiny(len(tiny_sources.categories), "correlation").eval()
    looked: list[int] = []
    trainee.net.backbone.register_forward_hook(lambda _module, inputs, _output: looked.append(len(inputs[0])))
    order = torch.tensor([2, 0, 2, 1, 0])
    frames, sound = batch.frames[order], torch.randn(5, 1, 1, 96, 64)
    with torch.inference_mode():
        answer = trainee(frames, sound)
        alone = [trainee(frames[i : i + 1], sound[i : i + 1]).masks.logits[0] for i in range(5)]
    assert looked == [3, 1, 1, 1, 1, 1]
    assert answer.masks is not None
    torch.testing.assert_close(answer.masks.logits, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_crossed_clips_are_every_picture_under_every_sound(tiny_sources: Sources) -> None:
    trainee = tiny(len(tiny_sources.categories), "correlation").eval()
    batch = SwapBatches(tiny_sources, "train", STREAM, 10)[0]
    answer = trainee(batch.frames, batch.sound)
    logits, target, seen = crossed(answer.masks, batch)
    n, size = len(batch.frames), (8, 8)
    assert logits.shape == target.shape == seen.shape == (n * n, *size)
    assert batch.heard is not None
    objects, sight = given(batch, "all", size), answer.masks.sight.proposals
    for i in range(n):
        for j in range(n):
            of_i = Proposals(sight.classes[i : i + 1], sight.masks[i : i + 1])
            lit, _ = correlate(of_i, answer.masks.heard[j : j + 1], "instances")
            torch.testing.assert_close(logits[i * n + j], lit[0, 0])
            if i != j:
                wanted = torch.zeros(size)
                for kind, mask in zip(objects[i].kinds, objects[i].masks, strict=True):
                    wanted = torch.maximum(wanted, mask * batch.heard[j, 0, kind])
                torch.testing.assert_close(target[i * n + j], wanted)
        something = 1 - sight.classes[i, 0].softmax(-1)[:, -1, None, None]
        torch.testing.assert_close(seen[i * n], (something * torch.sigmoid(sight.masks[i, 0])).amax(0))
    own = F.adaptive_avg_pool2d(batch.masks[:, 0].float(), size)
    torch.testing.assert_close(target[:: n + 1], own)


def test_fewer_clips_are_crossed_in_parts_so_that_stage_takes_none(tiny_sources: Sources) -> None:
    trainee = tiny(len(tiny_sources.categories), "correlation").eval()
    batch = SwapBatches(tiny_sources, "train", replace(STREAM, clips=4), 10)[0]
    counts = []
    for parts in (1, 2, 4, 8):
        shares = [Batch(**{k: v if v is None else v[i::parts] for k, v in vars(batch).items()}) for i in range(parts)]
        counts.append(sum(len(crossed(trainee(one.frames, one.sound).masks, one)[0]) for one in shares))
    assert counts == [64, 32, 16, 8]
    jobs = RECIPE.jobs(Materials(sources=tiny_sources))
    assert {job.name: job.crosses for job in jobs} == {"sight": False, "correlation": True}
    assert [job.crosses for job in OWN_SOUND.jobs(Materials(sources=tiny_sources))] == [False, False]


def test_of_what_nobody_tells_nothing_is_asked_under_other_sounds(tiny_sources: Sources) -> None:
    trainee = tiny(len(tiny_sources.categories), "correlation").eval()
    batch = SwapBatches(tiny_sources, "train", STREAM, 10)[0]
    answer = trainee(batch.frames, batch.sound)
    everything, told = crossed(answer.masks, batch), crossed(answer.masks, batch, "sounding")
    n = len(batch.frames)
    for i, known in enumerate(given(batch, "sounding", (8, 8))):
        union = known.masks.sum(0).clamp(max=1)
        for j in range(n):
            wanted = everything[2][i * n + j] * (1 if i == j else union)
            torch.testing.assert_close(told[2][i * n + j], wanted)
            if i != j:
                assert bool((told[1][i * n + j] <= union + 1e-6).all())


def test_a_sound_of_the_batch_lights_what_it_names_in_other_pictures(tiny_sources: Sources) -> None:
    batch = SwapBatches(tiny_sources, "train", STREAM, 10)[0]
    trainee = tiny(len(tiny_sources.categories), "correlation")
    _, losses = moved(trainee, CorrelationObjective(crossed=True), batch, steps=15)
    assert losses[-1] < losses[0]
    with pytest.raises(ConfigError, match="this data set tells none"):
        CorrelationObjective(crossed=True)(trainee(batch.frames, batch.sound), replace(batch, heard=None))


def test_a_sound_lights_what_it_names_off_screen_in_the_pictures_that_show_it(tiny_sources: Sources) -> None:
    batches, lit = with_voices_off_screen(CompositeBatches)(tiny_sources, "train", STREAM, 12), 0
    trainee = tiny(len(tiny_sources.categories), "correlation").eval()
    for number in range(12):
        batch = batches[number]
        assert batch.heard is not None
        own, answer = F.adaptive_avg_pool2d(batch.masks[:, 0].float(), (8, 8)), trainee(batch.frames, batch.sound)
        objects, n = given(batch, "all", (8, 8)), len(batch.frames)
        target = crossed(answer.masks, batch)[1].unflatten(0, (n, n))
        for j in range(n):
            torch.testing.assert_close(target[j, j], own[j], msg="what nobody sees lights nothing of its own picture")
            shown = {one.category for one in batches.composer.compose(number * n + j).objects}
            heard = batch.heard[j, 0].nonzero()[:, 0].tolist()
            aside = {k for k in heard if tiny_sources.categories[k] not in shown}
            for i in (i for i in range(n) if i != j):
                named = zip(objects[i].kinds.tolist(), objects[i].masks, strict=True)
                those = [mask for kind, mask in named if kind in aside]
                assert all(bool((target[i, j] >= mask).all()) for mask in those)
                lit += len(those)
    assert lit > 5


def test_where_nobody_says_what_is_heard_off_screen_nothing_is_asked_of_what_it_may_be(tiny_sources: Sources) -> None:
    trainee = tiny(len(tiny_sources.categories), "correlation").eval()
    batch = SwapBatches(tiny_sources, "train", STREAM, 10)[0]
    assert batch.heard is not None
    n, answer, unsure = len(batch.frames), trainee(batch.frames, batch.sound), torch.zeros_like(batch.heard)
    unsure[1] = ~batch.heard[1]
    told, doubted = (crossed(answer.masks, one) for one in (batch, replace(batch, unsure=unsure)))
    assert torch.equal(told[1], doubted[1])
    asked, left = (one[2].unflatten(0, (n, n)) for one in (told, doubted))
    for i, known in enumerate(given(batch, "all", (8, 8))):
        union = torch.zeros(8, 8)
        for kind, mask in zip(known.kinds, known.masks, strict=True):
            union = torch.maximum(union, mask * ~batch.heard[1, 0, kind])
        torch.testing.assert_close(left[i, 1], asked[i, 1] * (1 if i == 1 else 1 - union))
    assert torch.equal(left[:, [0, *range(2, n)]], asked[:, [0, *range(2, n)]])
    assert not torch.equal(left[:, 1], asked[:, 1])


def test_an_ear_of_another_kind_is_refused_before_anything_runs(tiny_sources: Sources) -> None:
    given = Materials(sources=tiny_sources, audio="tpavi-light")
    assert RECIPE.jobs(given)
    with pytest.raises(ConfigError, match="tiny hears with yamnet, tpavi-light with audio_cnn: give it a bundle"):
        RECIPE.jobs(replace(given, ear="yamnet"))


def test_vggish_comes_from_its_file_and_stays_as_it_is(tiny_sources: Sources, tmp_path: Path) -> None:
    torch.manual_seed(5)
    theirs, path = VGGish().state_dict(), tmp_path / "vggish.pth"
    torch.save(theirs, path)
    materials = Materials(sources=tiny_sources, workers=0, ear="vggish", vggish=str(path))
    for job in RECIPE.jobs(materials):
        assert isinstance(job, RecipeJob)
        trainee = job.build()
        ours = trainee.audio_encoder.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
        assert not any(p.requires_grad for p in trainee.audio_encoder.parameters())
    terms = job.loss(trainee.train(), next(job.batches(0, 0, 1)))
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert all(bool(torch.isfinite(term)) for term in terms.values())
    with pytest.raises(ConfigError, match="tiny hears with VGGish: give its weights, --vggish FILE"):
        RECIPE.jobs(replace(materials, vggish=None))
    for ear in (None, "audio_cnn"):
        with pytest.raises(ConfigError, match=r"tiny takes no --vggish, got .*vggish.pth: leave it out"):
            RECIPE.jobs(replace(materials, ear=ear))


def test_nobody_says_what_is_heard_unless_asked(tiny_sources: Sources, batch: Batch) -> None:
    trainee = tiny(len(tiny_sources.categories), "correlation")
    answer = trainee(batch.frames, batch.sound)
    assert batch.heard is not None
    other = replace(batch, heard=~batch.heard)
    silent, told = CorrelationObjective(), CorrelationObjective(naming=0.5)
    assert total(silent(answer, batch)) == total(silent(answer, other))
    assert total(told(answer, batch)) != total(told(answer, other))


def total(terms: dict[str, Tensor]) -> float:
    return float(sum(term.detach() for term in terms.values()))


def test_given_are_the_objects_of_the_data_or_those_that_sound(batch: Batch) -> None:
    assert batch.outlines is not None
    assert batch.kinds is not None
    everything, sounding = given(batch, "all", (16, 16)), given(batch, "sounding", (16, 16))
    for i, (one, lit) in enumerate(zip(everything, sounding, strict=True)):
        numbers = [n for n in range(1, OBJECTS + 1) if (batch.outlines[i, 0] == n).float().mean() > 0.002]
        assert one.kinds.tolist() == [int(batch.kinds[i, 0, n - 1]) for n in numbers]
        for n, mask in zip(numbers, one.masks, strict=True):
            assert float(mask.mean()) == pytest.approx(float((batch.outlines[i, 0] == n).float().mean()), abs=1e-6)
        union = lit.masks.sum(0).clamp(max=1) if len(lit.masks) else torch.zeros(16, 16)
        assert float(union.mean()) == pytest.approx(float(batch.masks[i, 0].float().mean()), abs=0.005)
        assert set(lit.kinds.tolist()) <= set(one.kinds.tolist())
    assert any(len(lit.kinds) < len(one.kinds) for one, lit in zip(everything, sounding, strict=True))


def test_a_teachers_proposals_join_what_is_given_where_they_lie_apart(tmp_path: Path, batch: Batch) -> None:
    net = tiny(3, "sight").net.eval()
    left, right = torch.full((2, 8, 8), -9.0)
    left[:, :4], right[:, 4:] = 9, 9
    classes = torch.full((6, 4), -9.0)
    classes[:, 3] = 9
    classes[0, 3] = classes[1, 3] = -9
    classes[0, 1] = classes[1, 2] = 9
    masks = torch.stack([left, right, *[left] * 4])
    proposals = Proposals(classes.expand(3, 1, 6, 4), masks.expand(3, 1, 6, 8, 8))
    net.look = lambda frames: Sight(torch.zeros(3, 1, 4, 2, 2), (proposals,))  # type: ignore[method-assign]
    teacher = Teacher("unread", ("a", "b", "c"))
    teacher.__dict__["_loaded"] = net, LITE0_INPUT, torch.arange(3)
    known = Given(torch.tensor([0]), torch.sigmoid(left)[None])
    nothing = Given(torch.zeros(0, dtype=torch.long), torch.zeros(0, 8, 8))
    found = teacher(batch, [known, nothing, known], 6)
    assert [one.kinds.tolist() for one in found] == [[0, 2], [1, 2], [0, 2]]
    torch.testing.assert_close(found[1].masks, torch.sigmoid(masks[:2]), atol=1e-3, rtol=0)
    assert [one.kinds.tolist() for one in teacher(batch, [known, nothing, known], 1)] == [[0], [1], [0]]
    assert [one.kinds.tolist() for one in others(net)(batch, [known, nothing, known], 6)] == [[0, 0], [0], [0, 0]]
    kept = {"bundle": "unread", "categories": ("a", "b", "c")}
    assert vars(copy.copy(teacher)) == kept, "what it has loaded does not travel"


def others(net: InstanceAwareNet) -> Teacher:
    """A teacher whose third category is the student's first, and whose second the student does not have."""
    teacher = Teacher("unread", ("a",))
    teacher.__dict__["_loaded"] = net, LITE0_INPUT, torch.tensor([-1, -1, 0])
    return teacher


def test_a_teachers_categories_are_found_by_their_names() -> None:
    known = load_bundle("instances-light").categories
    own = ("no such thing", known[5], known[2])
    _, _, places = Teacher("instances-light", own)._loaded
    assert {place: int(own_place) for place, own_place in enumerate(places) if own_place >= 0} == {5: 1, 2: 2}


def test_a_pseudo_recipe_needs_a_bundle_and_the_others_take_none(tiny_sources: Sources) -> None:
    pseudo = replace(RECIPE, sight_objective=SightObjective("sounding", "pseudo"))
    sight = pseudo.jobs(Materials(sources=tiny_sources, init="some/bundle"))[0]
    assert isinstance(sight, RecipeJob)
    assert sight.objective == SightObjective(
        "sounding", "pseudo", Teacher("some/bundle", tuple(tiny_sources.categories))
    )
    with pytest.raises(ConfigError, match="proposals of a frozen bundle: give it, --init"):
        pseudo.jobs(Materials(sources=tiny_sources))
    with pytest.raises(ConfigError, match="tiny takes no --init"):
        RECIPE.jobs(Materials(sources=tiny_sources, init="some/bundle"))


def test_data_without_objects_is_refused(batch: Batch) -> None:
    with pytest.raises(ConfigError, match="does not tell them apart"):
        given(replace(batch, outlines=None, kinds=None), "all", (16, 16))


def test_more_objects_than_a_batch_can_tell_apart_are_refused() -> None:
    class One:
        category = "dog"
        visible = np.ones((1, 4, 4), bool)

    with pytest.raises(DataError, match="may hold 8 objects"):
        object_labels([One()] * 9, (1, 4, 4), ["dog"])


@pytest.fixture(scope="module")
def done(tiny_sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    out, weights, last = tmp_path_factory.mktemp("trained"), None, None
    for job in RECIPE.jobs(Materials(sources=tiny_sources, workers=0)):
        last = train(job, Alone("cpu"), str(out), NullRun(), out, weights)
        weights = last.weights
    assert last is not None
    return last


def test_without_correlation_one_stage_is_all(tiny_sources: Sources, tmp_path: Path) -> None:
    recipe = replace(RECIPE, net=TINY.model_copy(update={"composition": "all"}))
    (job,) = recipe.jobs(Materials(sources=tiny_sources, workers=0))
    done = train(job, Alone("cpu"), str(tmp_path), NullRun(), tmp_path)
    net = load_bundle(str(done.left)).net.eval()
    frames = torch.rand(1, 1, 3, 64, 64)
    with torch.inference_mode():
        one, other = (net(frames, torch.rand(1, 1, 128) * scale).logits for scale in (0.0, 5.0))
    assert torch.equal(one, other)


def test_the_bundle_loads_names_its_categories_and_answers(done: Trained, tiny_sources: Sources) -> None:
    assert done.left is not None
    bundle = load_bundle(done.left)
    assert bundle.categories == tuple(tiny_sources.categories)
    assert bundle.config.arch == "instance_aware"
    assert bundle.config.tpavi is None
    assert isinstance(bundle.net, InstanceAwareNet)
    with torch.inference_mode():
        assert bundle.net(torch.zeros(1, 2, 3, 64, 64), torch.zeros(1, 2, 128)).logits.shape == (1, 2, 64, 64)
    assert bundle.config.instance_aware is not None
    assert bundle.config.instance_aware.activity
    assert bundle.net.activity is not None


def test_the_card_says_how_it_was_made_and_measured(done: Trained) -> None:
    assert done.left is not None
    text, config = (Path(done.left) / "card.md").read_text(), load_bundle(done.left).config
    assert "re-implemented from the abstract" in text
    assert "avs train tiny --out DIR" in text
    assert "all objects are known, silent ones: plain" in text
    assert f"| miou | {config.metrics['miou']:g} |" in text
