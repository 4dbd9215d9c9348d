"""One clip of the plan → its row, its truth and its files, as bytes. Deterministic."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from avs_core import masks
from avs_core.clip import AUDIO_RATE
from avs_core.datasets.benchmark import layout
from avs_core.datasets.benchmark.encoding import decode_frames, decode_sound, encode, png, wav
from avs_core.datasets.benchmark.manifest import ManifestRow, source_id
from avs_core.datasets.benchmark.plan import ATTEMPTS, FPS, SECONDS, SIZE, ClipSpec
from avs_core.datasets.benchmark.truth import ClipTruth, measure
from avs_core.datasets.composites import FRAME_PHASE, Composer, Scene
from avs_core.errors import ConfigError

_TRIAL_SIZE = 96
_LABELLED = [int((second + FRAME_PHASE) * FPS) for second in range(SECONDS)]


@dataclass(frozen=True)
class ComposedClip:
    """A clip ready to be written: its manifest row, the truth about its objects, and its files by path."""

    row: ManifestRow
    objects: list[dict[str, Any]]
    files: dict[str, bytes]


def find_scene(composer: Composer, spec: ClipSpec) -> Scene:
    """The first scene of the spec's seeds that is of its kind, tried at low resolution.

    Raises ConfigError if there is none: the split's sources are too few.
    """
    trial = composer.varied(size=_TRIAL_SIZE, look=False, **spec.composed())
    for seed in range(spec.seed, spec.seed + ATTEMPTS):
        scene = trial.plan(seed)
        clip = trial.stage(scene)
        visible = np.stack([one.visible for one in clip.objects])
        sounding = np.stack([one.sounding for one in clip.objects])
        if _truth(scene, visible, sounding).fits(spec):
            return scene
    raise ConfigError(
        f"a {spec.setting} clip of kind {spec.kind!r} needs fitting sources, and {ATTEMPTS} scenes of split "
        f"{spec.split!r} have none: add pictures and sounds to the catalogue"
    )


def compose_clip(composer: Composer, spec: ClipSpec) -> ComposedClip:
    """Render, encode, and decode again: frames and sound in the tree are what the video file shows.

    `composer` is one of the spec's split. Raises ConfigError as `find_scene`.
    """
    scene = find_scene(composer, spec)
    composer = composer.varied(**spec.composed())
    sound = composer.sound(scene)
    height, width = SIZE, 2 * round(SIZE * scene.aspect / 2)
    pictures, shown = [], []
    for index, (_, picture, visible) in enumerate(composer.render(scene, height, width)):
        pictures.append(picture)
        if index in _LABELLED:
            shown.append(_squeezed(visible))
    mp4 = encode(pictures, sound.waveform, FPS, (height, width), _crf(scene))
    sounding = np.stack([track.sounding if track else np.zeros(SECONDS, bool) for track in sound.tracks])
    visible = np.stack(shown, axis=1)
    row = _row(spec, scene, _truth(scene, visible, sounding))
    return ComposedClip(row, _objects(scene, visible, sounding), _files(row, mp4, visible, sounding))


def _truth(scene: Scene, visible: Bool[np.ndarray, "A T H W"], sounding: Bool[np.ndarray, "A T"]) -> ClipTruth:
    return measure(tuple(actor.category for actor in scene.actors), visible, sounding, bool(scene.offscreen))


def _squeezed(visible: Bool[np.ndarray, "A H W"]) -> Bool[np.ndarray, "A S S"]:
    """Masks at the size of the frames in the tree, by the same filter as theirs."""
    pictures = [Image.fromarray(one.astype(np.uint8) * 255) for one in visible]
    return np.stack([np.asarray(one.resize((SIZE, SIZE), Image.Resampling.BILINEAR)) > 127 for one in pictures])


def _crf(scene: Scene) -> int:
    """The video's quality follows the camera's: 18 (good) to 30 (bad)."""
    return round(float(np.interp(scene.look.quality, (35, 92), (30, 18))))


def _row(spec: ClipSpec, scene: Scene, truth: ClipTruth) -> ManifestRow:
    images = tuple(actor.ref for actor in scene.actors)
    voices = [actor.voice for actor in scene.actors if actor.voice] + list(scene.offscreen)
    sounds = tuple(voice.ref for voice in voices)
    return ManifestRow(
        clip_id=spec.clip_id,
        setting=spec.setting,
        split=spec.split,
        kind=spec.kind,
        seed=scene.seed,
        seconds=SECONDS,
        source_id=source_id((*images, *sounds, scene.background.ref)),
        categories=truth.categories,
        sources=truth.sources,
        subsets=truth.subsets(),
        image_refs=images,
        sound_refs=sounds,
        background_ref=scene.background.ref,
        silent=truth.silent,
        larger=truth.larger,
        video=layout.video(spec.setting, spec.split, spec.clip_id),
    )


def _objects(
    scene: Scene, visible: Bool[np.ndarray, "A T S S"], sounding: Bool[np.ndarray, "A T"]
) -> list[dict[str, Any]]:
    """Every object from back to front, with its masks as COCO run-length codes, one a second."""
    return [
        {
            "object_id": index + 1,
            "category": actor.category,
            "image_ref": actor.ref,
            "sound_ref": actor.voice.ref if actor.voice else None,
            "moves_with_sound": actor.motion.tied,
            "sounding": sounding[index].tolist(),
            "rle": [
                {"size": [SIZE, SIZE], "counts": masks.encode(mask)["counts"].decode("ascii")}
                for mask in visible[index]
            ],
        }
        for index, actor in enumerate(scene.actors)
    ]


def _files(
    row: ManifestRow,
    mp4: bytes,
    visible: Bool[np.ndarray, "A T S S"],
    sounding: Bool[np.ndarray, "A T"],
) -> dict[str, bytes]:
    place = layout.place_of(row)
    heard: UInt8[np.ndarray, "T S S"] = 255 * (visible & sounding[..., None, None]).any(0).astype(np.uint8)
    files = {row.video: mp4, layout.sound(*place): wav(decode_sound(mp4, SECONDS * AUDIO_RATE))}
    for second, picture in enumerate(decode_frames(mp4, _LABELLED, SIZE)):
        files[layout.frame(*place, second)] = png(picture)
    for second in layout.labelled(row.setting, row.split):
        files[layout.mask(*place, second)] = png(heard[second])
    return files
