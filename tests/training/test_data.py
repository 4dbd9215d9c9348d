"""Batches depend on the seed and their number alone, and say the truth about what is seen and heard."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from avs_core.audio import window_examples
from avs_core.datasets.composites import Composer, ComposerConfig, Scene
from avs_core.datasets.scenes import scene_rng
from avs_core.datasets.soundtrack import lay_track, normalise_sound
from avs_core.datasets.sources import Sources
from avs_core.errors import ConfigError
from avs_core.training.data import (
    GRID,
    HUSH,
    LOUDEST,
    Batch,
    CompositeBatches,
    OnTheFly,
    SoundBatches,
    StreamConfig,
    apart,
    heard_labels,
    hush,
    noise,
    stack,
    stream,
    thing_labels,
)
from avs_core.training.swaps import SwapBatches

PLAIN = StreamConfig(size=64, clips=3, frames=2, hushed=0.0, foreign=0.0, apart=False)


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch)]
    return all(a is b or torch.equal(a, b) for a, b in pairs)


def composed(sources: Sources, seed: int):  # type: ignore[no-untyped-def]  # a Composite
    return Composer(sources, "train", ComposerConfig(size=64, seconds=2)).compose(seed)


def test_a_batch_is_its_composites(tiny_sources: Sources) -> None:
    batch = CompositeBatches(tiny_sources, "train", PLAIN, 9)[2]
    for i in range(3):
        clip = composed(tiny_sources, 6 + i)
        assert np.array_equal(batch.frames[i].numpy(), clip.frames)
        assert np.array_equal(batch.masks[i].numpy(), clip.masks)
        assert torch.equal(batch.sound[i], window_examples(clip.waveform, 2))
        wanted = heard_by_hand(tiny_sources, clip.scene, 2)
        assert torch.equal(batch.heard[i], heard_labels(wanted, 2, tiny_sources.categories))
        of_objects = {(one.category, int(t)) for one in clip.objects for t in np.flatnonzero(one.sounding)}
        aside = {voice.category for voice in clip.scene.offscreen}
        assert {pair for pair in wanted if pair[0] not in aside} == of_objects


@pytest.mark.parametrize("kind", [CompositeBatches, SoundBatches])
def test_the_same_number_gives_the_same_batch(
    tiny_sources: Sources, kind: type[CompositeBatches] | type[SoundBatches]
) -> None:
    config = StreamConfig(size=64, clips=2, hushed=0.3, foreign=0.3)
    one, other = (kind(tiny_sources, "train", config, 9) for _ in range(2))
    assert same(one[5], other[5])
    assert not same(one[5], one[3])


def test_a_stream_may_start_anywhere_and_in_another_process(tiny_sources: Sources) -> None:
    batches = SoundBatches(tiny_sources, "train", StreamConfig(clips=2), 6)
    whole = list(stream(batches, 0, 6, workers=0))
    rest = list(stream(batches, 4, 6, workers=1))
    assert len(whole) == 6
    assert all(same(*pair) for pair in zip(whole[4:], rest, strict=True))


def test_hushed_clips_keep_the_picture_and_light_nothing(tiny_sources: Sources) -> None:
    config = StreamConfig(size=64, clips=3, hushed=1.0, foreign=0.0, apart=False)
    plain, hushed = (CompositeBatches(tiny_sources, "train", c, 9)[1] for c in (PLAIN, config))
    assert torch.equal(plain.frames, hushed.frames)
    assert torch.equal(plain.things, hushed.things)
    assert plain.masks.any()
    assert not hushed.masks.any()
    assert not hushed.heard.any()


def test_a_foreign_sound_names_what_is_heard_and_lights_nothing(tiny_sources: Sources) -> None:
    config = StreamConfig(size=64, clips=1, frames=2, hushed=0.0, foreign=1.0, apart=False)
    dataset, plain = (
        CompositeBatches(tiny_sources, "train", c, 30)
        for c in (config, StreamConfig(size=64, clips=1, frames=2, hushed=0.0, foreign=0.0, apart=False))
    )
    replaced = 0
    for number in range(30):
        batch, own = dataset[number], plain[number]
        assert torch.equal(batch.frames, own.frames)
        if torch.equal(batch.sound, own.sound):
            continue  # every kind of the tiny set is in the picture, so no other scene was foreign to it
        replaced += 1
        assert not batch.masks.any()
        shown = set(batch.things.unique().tolist())
        assert shown.isdisjoint(batch.heard.any(1).nonzero()[:, 1].tolist())
    assert replaced >= 5


def test_sound_batches_hear_what_composites_hear(tiny_sources: Sources) -> None:
    config = StreamConfig(size=64, clips=3, frames=2, hushed=0.0, foreign=0.0, apart=False)
    seen, heard = (kind(tiny_sources, "train", config, 9)[4] for kind in (CompositeBatches, SoundBatches))
    assert torch.equal(seen.sound, heard.sound)
    assert torch.equal(seen.heard, heard.heard)


def with_voices_off_screen(kind: type[OnTheFly]) -> type[OnTheFly]:
    """The same batches; something sounds off-screen in every clip that does not show all there is."""

    def composing(self: OnTheFly) -> ComposerConfig:
        return replace(kind.composing.fget(self), offscreen_share=1.0)

    return type(kind.__name__, (kind,), {"composing": property(composing)})


def heard_by_hand(sources: Sources, scene: Scene, seconds: int) -> set[tuple[str, int]]:
    """Every voice laid on the time line again, those of the picture first."""
    rng, heard = scene_rng(scene.seed, "train", 1), set()
    for voice in [*(actor.voice for actor in scene.actors if actor.voice), *scene.offscreen]:
        track = lay_track(voice, normalise_sound(sources.load_sound(voice.ref)), seconds, rng)
        heard |= {(voice.category, int(second)) for second in np.flatnonzero(track.sounding)}
    return heard


@pytest.mark.parametrize("kind", [CompositeBatches, SoundBatches, SwapBatches])
def test_what_sounds_off_screen_is_heard_and_lights_nothing(tiny_sources: Sources, kind: type[OnTheFly]) -> None:
    unseen, first = 0, 5_000_000 if kind is SwapBatches else 0
    batches = with_voices_off_screen(kind)(tiny_sources, "train", replace(PLAIN, clips=1), 20)
    for number in range(20):
        batch, clip = batches[number], batches.composer.compose(first + number)
        heard = heard_by_hand(tiny_sources, clip.scene, 2)
        assert torch.equal(batch.heard[0], heard_labels(heard, 2, tiny_sources.categories))
        assert torch.equal(batch.sound[0], window_examples(clip.waveform, 2)), "it sounds as it did"
        assert batch.unsure is None
        aside = {voice.category for voice in clip.scene.offscreen} & {name for name, _ in heard}
        assert aside.isdisjoint(one.category for one in clip.objects)
        assert kind is SoundBatches or np.array_equal(batch.masks[0].numpy(), clip.masks)
        unseen += bool(aside)
    assert unseen > 5


def test_a_foreign_sound_says_what_is_off_screen_in_it(tiny_sources: Sources) -> None:
    composer = Composer(tiny_sources, "train", ComposerConfig(size=32, seconds=2, offscreen_share=1.0))
    for seed in range(10):
        scene = composer.plan(seed)
        assert composer.sound(scene).heard(scene) == heard_by_hand(tiny_sources, scene, 2)


def test_things_are_what_is_seen_in_the_middle_of_a_cell(tiny_sources: Sources) -> None:
    clip, categories = composed(tiny_sources, 3), tiny_sources.categories
    labels = thing_labels(clip.objects, clip.masks.shape, categories)
    assert labels.shape == (2, 64 // GRID, 64 // GRID)
    for t in range(2):
        for row in range(labels.shape[1]):
            for column in range(labels.shape[2]):
                y, x = row * GRID + GRID // 2, column * GRID + GRID // 2
                here = [one.category for one in clip.objects if one.visible[t, y, x]]
                wanted = categories.index(here[-1]) if here else len(categories)
                assert labels[t, row, column] == wanted
    assert (labels < len(categories)).any()


def test_labels_of_what_is_heard() -> None:
    table = heard_labels({("b", 0), ("a", 2), ("b", 2)}, 3, ("a", "b"))
    assert table.tolist() == [[False, True], [False, False], [True, True]]


def test_apart_makes_each_second_a_clip(tiny_sources: Sources) -> None:
    batch = CompositeBatches(tiny_sources, "train", PLAIN, 9)[0]
    single = apart(batch)
    assert single.frames.shape[:2] == (6, 1)
    assert torch.equal(single.masks[3, 0], batch.masks[1, 1])
    assert torch.equal(single.heard[4, 0], batch.heard[2, 0])
    odd = CompositeBatches(tiny_sources, "train", StreamConfig(size=64, clips=3, hushed=0.0, foreign=0.0), 9)
    assert [odd[i].frames.shape[:2] for i in (0, 1)] == [(3, 2), (6, 1)]


def test_stacking_is_concatenation(tiny_sources: Sources) -> None:
    dataset = SoundBatches(tiny_sources, "train", StreamConfig(clips=2), 9)
    both = stack([dataset[0], dataset[1]])
    assert torch.equal(both.sound, torch.cat([dataset[0].sound, dataset[1].sound]))


def test_a_hush_is_faint_but_not_digital_silence() -> None:
    faint = hush(16_000, np.random.default_rng(0))
    assert 0 < np.abs(faint).mean() < HUSH


def test_noise_is_of_every_level_and_colour() -> None:
    levels, slopes = [], []
    for seed in range(60):
        wave = noise(16_000, np.random.default_rng(seed))
        power = np.abs(np.fft.rfft(wave)) ** 2
        low, high = power[50:100].mean(), power[4000:8000].mean()
        levels.append(float(wave.std()))
        slopes.append(float(np.log(low / high) / np.log(6000 / 75)))
    assert HUSH <= min(levels) < 3 * HUSH
    assert LOUDEST / 3 < max(levels) <= LOUDEST * 1.001
    assert min(slopes) == pytest.approx(0, abs=0.2)
    assert max(slopes) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("kind", [CompositeBatches, SoundBatches])
def test_processes_share_a_batch_clip_by_clip(
    tiny_sources: Sources, kind: type[CompositeBatches] | type[SoundBatches]
) -> None:
    config = StreamConfig(size=64, clips=3, hushed=0.4, foreign=0.3, apart=False)
    whole = kind(tiny_sources, "train", config, 9)[5]
    shares = [kind(tiny_sources, "train", config, 9, rank, 2)[5] for rank in range(2)]
    joined = stack(shares)
    assert same(whole, Batch(**{k: None if v is None else v[[0, 2, 1]] for k, v in vars(joined).items()}))


def test_more_processes_than_clips_are_refused(tiny_sources: Sources) -> None:
    with pytest.raises(ConfigError, match="3 clips, 4 processes"):
        CompositeBatches(tiny_sources, "train", PLAIN, 9, 0, 4)
