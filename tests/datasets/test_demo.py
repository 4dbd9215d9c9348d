"""The shipped demo clips against their truth."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pycocotools import mask as coco

from avs_core.datasets.demo import DEMO_CLIPS, FPS, HEIGHT, SECONDS, WIDTH, demo_scene, write_demo
from avs_core.datasets.sources import LICENCES, Sources, fetch_packages
from avs_core.errors import ConfigError

FOLDER = Path("avs_core/builtin/demo")
NAMES = [clip.name for clip in DEMO_CLIPS]


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "truth.json").read_text())
    return found


def _frames(name: str) -> np.ndarray:
    with av.open(str(FOLDER / f"{name}.mp4")) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _waveform(name: str) -> np.ndarray:
    with av.open(str(FOLDER / f"{name}.mp4")) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def _masks(one: dict[str, Any]) -> np.ndarray:
    codes = [{"size": [HEIGHT, WIDTH], "counts": counts} for counts in one["counts"]]
    return np.stack([coco.decode(code).astype(bool) for code in codes])


def test_every_clip_is_there_and_small(truth: dict[str, Any]) -> None:
    assert sorted(truth) == sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.mp4"))
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000


@pytest.mark.parametrize("name", NAMES)
def test_streams(name: str) -> None:
    with av.open(str(FOLDER / f"{name}.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.pix_fmt, video.width, video.height) == (
            "h264",
            "yuv420p",
            WIDTH,
            HEIGHT,
        )
        assert (video.average_rate, video.frames) == (FPS, FPS * SECONDS)
        assert audio.codec_context.name == "aac"
    assert len(_waveform(name)) / 16_000 == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_it_sounds_when_the_truth_says_so(name: str, truth: dict[str, Any]) -> None:
    sound = _waveform(name)
    loud = [np.sqrt((sound[s * 16_000 + 500 : (s + 1) * 16_000 - 500] ** 2).mean()) for s in range(SECONDS)]
    heard = [any(one["sounding"][second] for one in truth[name]["objects"]) for second in range(SECONDS)]
    if any(heard) and not all(heard):
        assert min(np.array(loud)[heard]) > 5 * max(np.array(loud)[~np.array(heard)])
    elif not any(heard):
        assert max(loud) < 0.05


def test_each_clip_shows_what_it_says(truth: dict[str, Any]) -> None:
    ever = {name: [any(one["sounding"]) for one in clip["objects"]] for name, clip in truth.items()}
    assert ever["dog"] == ever["drum"] == [True]
    assert sorted(ever["two-at-once"]) == [False, True, True]
    assert ever["silence"] == [False, False]
    assert truth["late-horn"]["objects"][0]["sounding"] == [False] * 3 + [True] * 3
    giant = {any(one["sounding"]): _masks(one).sum() for one in truth["silent-giant"]["objects"]}
    assert giant[False] > 3 * giant[True]


def test_the_swapped_pair_differs_in_sound_only(truth: dict[str, Any]) -> None:
    assert np.array_equal(_frames("swap-dog"), _frames("swap-guitar"))
    one, two = truth["swap-dog"]["objects"], truth["swap-guitar"]["objects"]
    assert [a["counts"] for a in one] == [b["counts"] for b in two]
    assert [any(a["sounding"]) for a in one] == [not any(b["sounding"]) for b in two]


def test_masks_lie_on_the_objects(truth: dict[str, Any]) -> None:
    frames = _frames("drum").astype(int)
    (drum,) = truth["drum"]["objects"]
    for second, mask in enumerate(_masks(drum)):
        frame = frames[int((second + 0.9375) * FPS)]
        red = frame[..., 0] - frame[..., 1] > 60
        assert (red & mask).sum() > 0.95 * red.sum()


def test_all_sources_are_held_out_and_named(truth: dict[str, Any]) -> None:
    sources, listed = Sources(), (FOLDER / "SOURCES.md").read_text()
    trained = {place.ref for place in sources.backgrounds("train")}
    for name in sources.categories:
        trained |= {*sources.images("train", name), *sources.sounds("train", name)}
    for clip in truth.values():
        refs = {clip["background"]}
        for one in clip["objects"]:
            refs |= {one["image"]} | ({one["sound"]} if one["sound"] else set())
        assert refs.isdisjoint(trained)
        for ref in refs:
            package, _, path = ref.partition(":")
            assert f"| {package} | `{path}` | {LICENCES[package]} |" in listed


def test_a_clip_whose_source_is_not_in_its_split_is_refused(tiny_sources: Sources) -> None:
    with pytest.raises(ConfigError, match="dog"):
        demo_scene(tiny_sources, DEMO_CLIPS[0])


@pytest.mark.slow
def test_rendering_again_gives_the_shipped_truth(tmp_path: Path, truth: dict[str, Any]) -> None:
    assert write_demo(Sources(root=fetch_packages()), tmp_path) == truth
    assert (tmp_path / "SOURCES.md").read_text() == (FOLDER / "SOURCES.md").read_text()
