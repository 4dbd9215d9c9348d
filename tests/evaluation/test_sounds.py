"""The sounds that a model is tested with."""

import numpy as np
import pytest
import torch

from avs_core.audio import window_examples
from avs_core.evaluation.sounds import FAINTEST, SoundBank, at_loudness, loudness, pink, white
from tests.evaluation.worlds import SECONDS, Plan, World, tone

WORLD = World()
REFS = WORLD.clips("test")
BANK = SoundBank(WORLD, REFS, "aligned")


def test_substitutes_are_as_loud_as_the_sound_they_replace() -> None:
    clip = WORLD.load(REFS[3], 32)
    assert clip.waveform is not None
    solo = BANK.solo("green", 3, clip)
    assert solo is not None
    assert loudness(solo) == pytest.approx(loudness(clip.waveform), rel=1e-5)
    assert loudness(at_loudness(white(16_000, np.random.default_rng(0)), 0.123)) == pytest.approx(0.123, rel=1e-5)
    assert loudness(at_loudness(tone("red"), 0.0)) == pytest.approx(FAINTEST, rel=1e-5)
    assert loudness(at_loudness(np.zeros(9, np.float32), 0.5)) == 0


def test_a_solo_is_the_sound_of_that_class_alone_of_another_video() -> None:
    clip = WORLD.load(REFS[3], 32)
    solo = BANK.solo("red", 3, clip)
    assert solo is not None
    wanted = at_loudness(tone("red"), loudness(solo))
    assert np.allclose(solo, wanted, atol=1e-4)
    assert BANK.solo("violet", 3, clip) is None
    assert SoundBank(WORLD, REFS[3:4], "aligned").solo("red", 0, clip) is None


def test_a_foreign_sound_is_of_another_video_and_of_nothing_in_the_picture() -> None:
    tones = {name: window_examples(tone(name), SECONDS).argmax(3).float().mean() for name in ("red", "green", "blue")}
    for place, ref in enumerate(REFS):
        clip = WORLD.load(ref, 32)
        examples = BANK.examples("foreign", place, clip)
        assert examples is not None
        heard = min(tones, key=lambda name: abs(float(tones[name] - examples.argmax(3).float().mean())))
        assert heard not in {one.category for one in clip.instances}


def test_a_clip_with_a_sound_that_nobody_names_is_no_foreign_one() -> None:
    plans = (
        Plan(("red",), ("red",), "v0", ()),
        Plan(("green",), ("green",), "v1", ("off-screen",)),
        Plan(("blue",), ("blue",), "v2", ()),
    )
    world = World(plans)
    refs = world.clips("test")
    clip = world.load(refs[0], 32)
    taken = [SoundBank(world, refs, "aligned", seed)._foreign(0, clip) for seed in range(4)]
    assert [ref.clip_id for ref in taken if ref] == ["clip2"] * 4


def test_only_where_all_objects_are_known_a_sound_is_certainly_of_nothing_in_the_picture() -> None:
    picture = Plan(("red", "green"), ("red",), "v0")
    green, blue = Plan(("green",), ("green",), "v1"), Plan(("blue",), ("blue",), "v2")

    def absent(*hidden: str, others: tuple[Plan, ...] = (green, blue)) -> bool:
        world = World((picture, *others), hidden)
        refs = world.clips("test")
        return SoundBank(world, refs, "aligned").hears_absent(0, world.load(refs[0], 32))

    assert absent()
    assert not absent(others=(green,)), "the green square is silent, and in the picture"
    assert not absent("instances", others=(green,)), "nobody tells that it is"
    assert not absent("instances")
    assert not absent("categories"), "nobody says what the other clip's sound is"


def test_silence_is_what_the_front_end_makes_of_nothing() -> None:
    clip = WORLD.load(REFS[0], 32)
    found = BANK.examples("silence", 0, clip)
    assert found is not None
    torch.testing.assert_close(found, torch.full((SECONDS, 1, 96, 64), float(np.log(0.01))))


def test_pink_noise_loses_3_db_an_octave_and_white_none() -> None:
    rng = np.random.default_rng(0)
    for make, slope in ((white, 0.0), (pink, -3.01)):
        power = np.abs(np.fft.rfft(make(2**18, rng))) ** 2
        low, high = power[2**10 : 2**11].mean(), power[2**15 : 2**16].mean()
        assert 10 * np.log10(high / low) / 5 == pytest.approx(slope, abs=0.2)


def test_the_same_place_hears_the_same_noise() -> None:
    clip = WORLD.load(REFS[0], 32)
    again = SoundBank(WORLD, REFS, "aligned")
    first, second, other = (
        BANK.examples("white", 0, clip),
        again.examples("white", 0, clip),
        BANK.examples("white", 1, clip),
    )
    assert first is not None
    assert second is not None
    assert other is not None
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
