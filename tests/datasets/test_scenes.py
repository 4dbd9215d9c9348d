"""What scenes contain: shares, settings, and the seed."""

import pytest

from avs_core.datasets.composites import Composer
from avs_core.datasets.scenes import ComposerConfig, Planner, Scene
from avs_core.datasets.sources import Catalogue, Sources
from avs_core.errors import ConfigError


def _scenes(sources: Sources, count: int, **settings: float) -> list[Scene]:
    composer = Composer(sources, "train", ComposerConfig(size=32, **settings))
    return [composer.plan(seed) for seed in range(count)]


def _sounding(scene: Scene) -> list[str]:
    return [actor.category for actor in scene.actors if actor.voice]


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 8},
        {"seconds": 0},
        {"min_objects": 0},
        {"min_objects": 3, "max_objects": 2},
        {"silent_share": 1.5},
        {"two_share": -0.1},
        {"aspects": ()},
        {"aspects": (9.0,)},
        {"noise_db": (40.0, 6.0)},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ComposerConfig(**settings)


def test_the_same_seed_gives_the_same_scene(tiny_sources: Sources) -> None:
    one, two = Composer(tiny_sources, "train"), Composer(tiny_sources, "train")
    assert [one.plan(seed) for seed in range(20)] == [two.plan(seed) for seed in range(20)]
    assert one.plan(1) != one.plan(2)
    assert Composer(tiny_sources, "val").plan(1) != one.plan(1)


def test_shares_are_kept(tiny_sources: Sources) -> None:
    scenes = _scenes(tiny_sources, 400, silent_share=0.2, two_share=0.3, distractor_share=0.7, offscreen_share=0.1)
    heard = [scene for scene in scenes if _sounding(scene)]
    assert len(scenes) - len(heard) == pytest.approx(80, abs=30)
    assert sum(len(_sounding(scene)) == 2 for scene in heard) == pytest.approx(0.3 * len(heard), abs=35)
    assert sum(len(scene.actors) > len(_sounding(scene)) for scene in heard) > 0.5 * len(heard)
    assert 10 < sum(bool(scene.offscreen) for scene in scenes) < 80


def test_extreme_shares(tiny_sources: Sources) -> None:
    assert not any(_sounding(scene) for scene in _scenes(tiny_sources, 40, silent_share=1.0))
    lone = _scenes(
        tiny_sources, 40, silent_share=0.0, two_share=0.0, twin_share=0.0, distractor_share=0.0, offscreen_share=0.0
    )
    assert all(len(scene.actors) == len(_sounding(scene)) == 1 for scene in lone)
    full = _scenes(tiny_sources, 40, min_objects=4, max_objects=4)
    assert all(len(scene.actors) == 4 for scene in full)


def test_silent_objects_are_of_other_classes_unless_twins(tiny_sources: Sources) -> None:
    for scene in _scenes(tiny_sources, 200, twin_share=0.0):
        categories = [actor.category for actor in scene.actors]
        assert len(set(categories)) == len(categories)
    twins = _scenes(tiny_sources, 200, twin_share=1.0, two_share=0.0, silent_share=0.0, aspects=(16 / 9,))
    pairs = 0
    for scene in twins:
        (category,) = _sounding(scene)
        refs = [actor.ref for actor in scene.actors if actor.category == category]
        assert len(set(refs)) == len(refs)
        pairs += len(refs) == 2
    assert pairs > 160, "a twin is left out only where it would hide the other"


def test_what_sounds_off_screen_is_not_shown(tiny_sources: Sources) -> None:
    for scene in _scenes(tiny_sources, 100, offscreen_share=1.0, max_objects=2):
        assert {voice.category for voice in scene.offscreen}.isdisjoint(actor.category for actor in scene.actors)
        assert scene.offscreen


def test_objects_stand_where_their_kind_may() -> None:
    sources = Sources()
    catalogue = sources.catalogue
    planner = Planner(sources, "train", ComposerConfig(), lambda ref: 1.0)  # needs no package
    for seed in range(300):
        scene = planner.plan(seed)
        for actor in scene.actors:
            assert actor.ref in sources.images("train", actor.category)
            if actor.place == "air":
                assert scene.background.setting != "indoor"
                assert actor.y < 0.6
            elif scene.background.setting not in catalogue.classes[actor.category].settings:
                pytest.fail(f"{actor.category} on {scene.background}")
            if actor.place in ("ground", "water"):
                assert actor.y >= 0.3
        order = [actor.y for actor in scene.actors if actor.place in ("ground", "water")]
        assert order == sorted(order), "what stands lower in the frame is nearer and drawn later"


def test_a_split_without_sounds_is_refused(tiny_sources: Sources) -> None:
    empty = Catalogue(classes={}, backgrounds=tiny_sources.catalogue.backgrounds)
    with pytest.raises(ConfigError, match="train"):
        Composer(Sources(empty, tiny_sources.root), "train")


def _voiced(sources: Sources, **settings: object) -> list[Scene]:
    return _scenes(sources, 60, silent_share=0.0, twin_share=0.0, offscreen_share=0.0, **settings)


def test_voices_are_heard_for_the_whole_clip_or_for_parts_of_it(tiny_sources: Sources) -> None:
    def spans(name: str) -> list[bool]:
        scenes = _voiced(tiny_sources, spans=name)
        voices = [actor.voice for scene in scenes for actor in scene.actors if actor.voice]
        return [(voice.start, voice.stop) == (0.0, 5.0) for voice in voices]

    assert all(spans("whole"))
    assert not any(spans("parts"))
    assert 0 < sum(spans("mixed")) < len(spans("mixed"))


def test_several_may_sound(tiny_sources: Sources) -> None:
    scenes = _voiced(tiny_sources, two_share=1.0, most_sources=3, distractor_share=0.0)
    assert {len(_sounding(scene)) for scene in scenes} == {2, 3}
    with pytest.raises(ConfigError, match="most_sources"):
        ComposerConfig(most_sources=1)


def test_a_class_with_one_picture_can_be_its_own_twin(tiny_sources: Sources) -> None:
    settings = {"silent_share": 0.0, "distractor_share": 0.0, "two_share": 0.0, "twin_share": 1.0}
    alone, mirrored = (
        [
            Composer(tiny_sources, "val", ComposerConfig(size=32, mirror_twins=mirror, **settings)).plan(seed)
            for seed in range(10)
        ]
        for mirror in (False, True)
    )
    assert all(len(scene.actors) == 1 for scene in alone), "the validation split has one picture of a class"
    assert any(len(scene.actors) == 2 for scene in mirrored)


def test_silent_objects_may_be_kept_to_classes_that_sound(tiny_sources: Sources) -> None:
    classes = tiny_sources.catalogue.classes
    heard_in_train = classes["delta"].model_copy(update={"sounds": classes["delta"].sounds[:1]})
    catalogue = tiny_sources.catalogue.model_copy(update={"classes": {**classes, "delta": heard_in_train}})
    sources, shown = Sources(catalogue, tiny_sources.root), []
    for only in (False, True):
        composer = Composer(sources, "val", ComposerConfig(size=32, silent_soundable=only))
        scenes = [composer.plan(seed) for seed in range(60)]
        shown.append(any(actor.category == "delta" for scene in scenes for actor in scene.actors))
    assert shown == [True, False]
