"""Clips of the benchmark: of their kind, true to their video, and drawn alike whether they sound or not."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from avs_core.datasets.benchmark import composing
from avs_core.datasets.benchmark.composing import compose_clip, find_scene
from avs_core.datasets.benchmark.encoding import decode_frames
from avs_core.datasets.benchmark.plan import SHARES, ClipSpec, make_plan
from avs_core.datasets.composites import Composer, ComposerConfig, Composite, Scene
from avs_core.datasets.sources import Sources, fetch_packages
from avs_core.errors import ConfigError

ALL_KINDS = [(setting, kind) for setting, kinds in SHARES.items() for kind in kinds]


def _spec(setting: str, kind: str, split: str = "train") -> ClipSpec:
    return ClipSpec(f"{setting}_{split}_00001", setting, split, kind, 0)


@pytest.mark.parametrize(("setting", "kind"), ALL_KINDS)
def test_a_scene_of_every_kind_is_found(tiny_sources: Sources, setting: str, kind: str) -> None:
    composer, spec = Composer(tiny_sources, "train"), _spec(setting, kind)
    scene = find_scene(composer, spec)
    voices = [actor.voice for actor in scene.actors if actor.voice]
    assert len(voices) >= {"chorus": 2, "crowd": 2, "silence": 0, "off-screen": 0}.get(kind, 1)
    assert bool(scene.offscreen) == (kind == "off-screen")
    if setting == "s4":
        assert [(voice.start, voice.stop) for voice in voices] == [(0.0, 5.0)]
    assert find_scene(Composer(tiny_sources, "train"), spec) == scene


def test_a_split_without_fitting_sources_is_refused(tiny_sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composing, "ATTEMPTS", 5)
    only_alpha = tiny_sources.catalogue.model_copy(
        update={"classes": {"alpha": tiny_sources.catalogue.classes["alpha"]}}
    )
    with pytest.raises(ConfigError, match="crowd"):
        find_scene(Composer(Sources(only_alpha, tiny_sources.root), "train"), _spec("ms3", "crowd"))


def test_the_tree_shows_what_the_video_shows(tiny_sources: Sources) -> None:
    clip = compose_clip(Composer(tiny_sources, "test"), _spec("ms3", "crowd", "test"))
    mp4 = clip.files[clip.row.video]
    shown = decode_frames(mp4, [15, 31, 47, 63, 79], 224)
    kept = [data for name, data in sorted(clip.files.items()) if "visual_frames" in name]
    assert [np.array(Image.open(io.BytesIO(data))).tobytes() for data in kept] == [frame.tobytes() for frame in shown]
    assert sum("gt_masks" in name for name in clip.files) == 5
    assert clip.row.sources >= 2
    assert sorted({one["category"] for one in clip.objects if any(one["sounding"])}) == sorted(clip.row.categories)


def _pictures(composer: Composer, scene: Scene) -> np.ndarray:
    return np.stack([picture for _, picture, _ in composer.render(scene, 96, 128)])


def _swapped(scene: Scene) -> Scene:
    """The same scene where the first silent object has the voice of the one that sounds."""
    actors = list(scene.actors)
    loud = next(index for index, actor in enumerate(actors) if actor.voice)
    quiet = next(index for index, actor in enumerate(actors) if not actor.voice)
    voice = actors[loud].voice
    actors[loud], actors[quiet] = replace(actors[loud], voice=None), replace(actors[quiet], voice=voice)
    return replace(scene, actors=tuple(actors))


def _tied(scene: Scene, tied: bool) -> Scene:
    return replace(
        scene,
        actors=tuple(
            replace(actor, motion=replace(actor.motion, tied=tied, bob=0.05, sway=0.1)) for actor in scene.actors
        ),
    )


def test_who_sounds_leaves_no_trace_in_the_picture(tiny_sources: Sources) -> None:
    """Sounding and silent objects go through the same compositing: only a tied motion depends on the voice."""
    spec = _spec("s4", "distractor")
    composer = Composer(tiny_sources, "train")
    free, tied = (_tied(find_scene(composer, spec), tied) for tied in (False, True))
    composer = composer.varied(**spec.composed())
    assert np.array_equal(_pictures(composer, free), _pictures(composer, _swapped(free)))
    assert not np.array_equal(_pictures(composer, tied), _pictures(composer, _swapped(tied)))


def _traces(clip: Composite) -> list[tuple[list[float], bool]]:
    """For each object in view: contrast and sharpness at its rim, grain and light inside, and whether it sounds."""
    found = []
    grey = clip.frames[0].astype(float).mean(-1)
    gradient = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    grain = np.abs(grey - ndimage.gaussian_filter(grey, 1))
    for one in clip.objects:
        inside = one.visible[0]
        core = ndimage.binary_erosion(inside, iterations=3)
        if core.sum() < 100:
            continue
        around = ndimage.binary_dilation(inside, iterations=4) & ~ndimage.binary_dilation(inside)
        rim = ndimage.binary_dilation(inside) & ~ndimage.binary_erosion(inside)
        contrast = abs(grey[core].mean() - grey[around].mean())
        values = [gradient[rim].mean(), contrast, grain[core].mean(), grey[core].mean(), grain[rim].mean()]
        found.append((values, bool(one.sounding.any())))
    return found


@pytest.mark.slow
def test_traces_of_compositing_do_not_tell_what_sounds() -> None:
    """A classifier on rim, grain and light of real cut-outs is no better than chance."""
    sources, composers, found = Sources(root=fetch_packages()), {}, []
    for spec in make_plan("small", 0).clips[:240]:
        composer = composers.setdefault(spec.split, Composer(sources, spec.split, ComposerConfig()))
        clip = composer.varied(**spec.composed()).stage(find_scene(composer, spec))
        if 0 < sum(one.sounding.any() for one in clip.objects) < len(clip.objects):
            found += _traces(clip)
    values = StandardScaler().fit_transform(np.array([values for values, _ in found]))
    sounding = np.array([sounds for _, sounds in found])
    guessed = cross_val_predict(LogisticRegression(), values, sounding, cv=10, method="predict_proba")[:, 1]
    area_under_curve = roc_auc_score(sounding, guessed)
    print(f"{len(found)} objects, AUROC {area_under_curve:.3f}")
    assert area_under_curve < 0.6
