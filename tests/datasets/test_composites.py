"""Whole clips: shapes, truth and determinism."""

import time

import numpy as np
import pytest

from avs_core.datasets.composites import Composer, ComposerConfig
from avs_core.datasets.sources import Sources, fetch_packages
from avs_core.errors import ConfigError

SMALL = ComposerConfig(size=48, seconds=3)
BARE = ComposerConfig(size=48, seconds=3, look=False, room=False, noise_db=None, offscreen_share=0.0)


def test_shapes_and_types(tiny_sources: Sources) -> None:
    clip = Composer(tiny_sources, "train", SMALL).compose(3)
    assert clip.frames.shape == (3, 48, 48, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.waveform.shape == (48_000,)
    assert clip.waveform.dtype == np.float32
    assert clip.masks.shape == (3, 48, 48)
    for one in clip.objects:
        assert one.sounding.shape == (3,)
        assert one.visible.shape == (3, 48, 48)


def test_a_seed_gives_the_same_bytes_whatever_came_before(tiny_sources: Sources) -> None:
    fresh, used = Composer(tiny_sources, "train", SMALL), Composer(tiny_sources, "train", SMALL)
    for seed in range(5):
        used.compose(seed)
    for seed in (11, 12):
        one, two = fresh.compose(seed), used.compose(seed)
        assert one.frames.tobytes() == two.frames.tobytes()
        assert one.waveform.tobytes() == two.waveform.tobytes()
        assert one.masks.tobytes() == two.masks.tobytes()
    assert fresh.compose(11).frames.tobytes() != fresh.compose(12).frames.tobytes()


def test_masks_are_the_union_of_what_sounds_in_that_second(tiny_sources: Sources) -> None:
    composer = Composer(tiny_sources, "train", BARE)
    for seed in range(40):
        clip = composer.compose(seed)
        for second in range(3):
            heard = [one.visible[second] for one in clip.objects if one.sounding[second]]
            union = np.any(heard, axis=0) if heard else np.zeros((48, 48), bool)
            assert np.array_equal(clip.masks[second], union)
        assert sum(one.visible.astype(int) for one in clip.objects).max() <= 1, "a pixel shows one object"


def test_the_waveform_is_silent_where_nothing_sounds(tiny_sources: Sources) -> None:
    composer = Composer(tiny_sources, "train", BARE)
    silent = heard = 0
    for seed in range(40):
        clip = composer.compose(seed)
        for second in range(3):
            part = clip.waveform[second * 16_000 : (second + 1) * 16_000]
            if any(one.sounding[second] for one in clip.objects):
                heard += 1
                assert np.abs(part).max() > 0.005
            else:
                silent += 1
                assert not part.any()
    assert silent > 5
    assert heard > 50


def test_each_class_is_heard_at_its_own_pitch(tiny_sources: Sources) -> None:
    composer = Composer(
        tiny_sources, "train", ComposerConfig(size=32, two_share=0.0, room=False, noise_db=None, offscreen_share=0.0)
    )
    names = list(tiny_sources.categories)
    for seed in range(20):
        clip = composer.compose(seed)
        heard = [one.category for one in clip.objects if one.sounding.any()]
        if heard:
            peak = np.argmax(np.abs(np.fft.rfft(clip.waveform))) / 5
            nearest = names[int(np.argmin([abs(np.log(peak / (300 * 2**i))) for i in range(4)]))]
            assert [nearest] == heard


def test_rendering_at_full_rate_passes_through_the_same_scene(tiny_sources: Sources) -> None:
    config = ComposerConfig(size=48, seconds=2, fps=16, look=False)
    composer = Composer(tiny_sources, "train", config)
    scene = composer.plan(5)
    frames = list(composer.render(scene, 48, 48))
    assert len(frames) == 32
    clip = composer.stage(scene)
    for second in range(2):
        t, picture, visible = frames[second * 16 + 15]  # 15/16 s is exactly 0.9375 s
        assert t == second + 0.9375
        assert np.array_equal(picture, clip.frames[second])
        for index, one in enumerate(clip.objects):
            assert np.array_equal(visible[index], one.visible[second])


@pytest.mark.slow
def test_real_sources_compose_fast_enough_to_train_on() -> None:
    composer = Composer(Sources(root=fetch_packages()), "train")
    for seed in range(150):
        composer.compose(seed)
    start = time.process_time()
    clips = [composer.compose(seed) for seed in range(40)]
    assert (time.process_time() - start) / 40 < 0.25
    assert len({one.category for clip in clips for one in clip.objects}) > 25
    assert any(clip.masks.any() for clip in clips)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["val", "test", "unseen"])
def test_every_split_composes(split: str) -> None:
    composer = Composer(Sources(root=fetch_packages()), split)
    clips = [composer.compose(seed) for seed in range(12)]
    assert any(clip.masks.any() for clip in clips)


def test_a_varied_composer_composes_what_a_new_one_would(tiny_sources: Sources) -> None:
    first = Composer(tiny_sources, "train", SMALL)
    first.compose(1)
    varied = first.varied(distractor_share=1.0)
    fresh = Composer(tiny_sources, "train", ComposerConfig(size=48, seconds=3, distractor_share=1.0))
    assert varied.compose(2).frames.tobytes() == fresh.compose(2).frames.tobytes()
    with pytest.raises(ConfigError, match="background_px"):
        first.varied(background_px=100)
