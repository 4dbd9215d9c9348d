"""The demo clips: eight composites of held-out sources, each showing one thing a segmenter must get right."""

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float32

from avs_core import masks
from avs_core.clip import AUDIO_RATE
from avs_core.datasets.composites import FRAME_PHASE, Composer
from avs_core.datasets.scenes import Actor, Camera, ComposerConfig, Look, Motion, Scene, Voice
from avs_core.datasets.sources import LICENCES, Sources, Split
from avs_core.errors import ConfigError

HEIGHT, WIDTH, FPS, SECONDS = 360, 640, 25, 6
_STILL = Motion()
_THROUGHOUT = (0.0, float(SECONDS))


@dataclass(frozen=True)
class Part:
    """One object of a demo clip: middle of its foot and height (shares of the frame), when it sounds (s, None: never).

    `sound` names the recording's file; empty takes the first of the class.
    """

    category: str
    image: str
    x: float
    y: float
    height: float
    sounds: tuple[float, float] | None = None
    flip: bool = False
    motion: Motion = _STILL
    sound: str = ""


@dataclass(frozen=True)
class DemoClip:
    """A demo clip as its author describes it; pictures and places are named by their file names."""

    name: str
    shows: str
    split: Split
    background: str
    parts: tuple[Part, ...]
    pan: float = 0.0


_SWAP = (
    Part("guitar_electric", "guitar_electric_bass.png", 0.27, 0.95, 0.8, _THROUGHOUT),
    Part("dog", "dog.png", 0.72, 0.93, 0.55, None, True),
)

DEMO_CLIPS: tuple[DemoClip, ...] = (
    DemoClip(
        "dog",
        "one object, sounding throughout",
        "val",
        "wooden-house.jpg",
        (Part("dog", "dog.png", 0.55, 0.94, 0.55, _THROUGHOUT, motion=Motion(bob=0.02, hertz=1.2, drift_x=0.02)),),
        pan=0.004,
    ),
    DemoClip(
        "drum",
        "one object, sounding throughout",
        "test",
        "hallway_outdoors.jpg",
        (Part("drums", "drum_tomtom_floor.png", 0.45, 0.93, 0.55, _THROUGHOUT),),
    ),
    DemoClip(
        "two-at-once",
        "two objects sound at once, a third is silent",
        "test",
        "mansion.jpg",
        (
            Part("cow", "cow.png", 0.3, 0.9, 0.42, _THROUGHOUT, motion=Motion(drift_x=0.03)),
            Part(
                "person",
                "cassy-dancing-3.gif",
                0.78,
                0.95,
                0.7,
                _THROUGHOUT,
                motion=Motion(sway=0.03, hertz=0.8),
                sound="Laugh-female.wav",
            ),
            Part("pig", "wildboar.png", 0.53, 0.97, 0.25),
        ),
    ),
    DemoClip(
        "silent-giant",
        "the larger, nearer object is silent",
        "val",
        "life_by_Aitzol_Berasategi.jpg",
        (
            Part("duck", "duck.png", 0.2, 0.92, 0.27, _THROUGHOUT, motion=Motion(drift_x=0.015)),
            Part("cow", "bull.png", 0.64, 0.98, 0.8, motion=Motion(sway=0.012, hertz=0.5)),
        ),
    ),
    DemoClip("swap-guitar", "the guitar sounds; same pictures as swap-dog", "val", "berkeley-mural.jpg", _SWAP),
    DemoClip(
        "swap-dog",
        "the dog sounds; same pictures as swap-guitar",
        "val",
        "berkeley-mural.jpg",
        (replace(_SWAP[0], sounds=None), replace(_SWAP[1], sounds=_THROUGHOUT)),
    ),
    DemoClip(
        "late-horn",
        "the ship starts to sound after three seconds",
        "test",
        "schwerinPalace.webp",
        (
            Part(
                "ship", "sail-boat.gif", 0.5, 0.94, 0.6, (3.0, float(SECONDS)), motion=Motion(drift_x=0.04, sway=0.012)
            ),
        ),
    ),
    DemoClip(
        "silence",
        "two animals, nothing sounds",
        "val",
        "rangGhar.webp",
        (
            Part("sheep", "sheep.png", 0.28, 0.95, 0.42),
            Part("goose", "gander.png", 0.7, 0.96, 0.45, motion=Motion(drift_x=-0.03, bob=0.015)),
        ),
    ),
)


def demo_composer(sources: Sources, clip: DemoClip) -> Composer:
    """The composer of a demo clip's split: 16:9, a dry room, a little noise."""
    config = ComposerConfig(
        seconds=SECONDS, fps=FPS, aspects=(16 / 9,), background_px=1280, room=False, noise_db=(30.0, 40.0)
    )
    return Composer(sources, clip.split, config)


def demo_scene(sources: Sources, clip: DemoClip) -> Scene:
    """The scene of a demo clip. Raises ConfigError if a picture, sound or place is not in its split."""
    aspect = WIDTH / HEIGHT
    places = [place for place in sources.backgrounds(clip.split) if place.ref.endswith("/" + clip.background)]
    if not places:
        raise ConfigError(f"demo clip {clip.name!r}: no background {clip.background!r} in split {clip.split!r}")
    return Scene(
        seed=0,
        background=places[0],
        aspect=aspect,
        camera=Camera(share=0.93, left=0.5, low=0.0, pan_x=clip.pan, pan_y=0.0, zoom=0.0, shake=0.0008),
        look=Look(0.8, 0.18, 0.25, (1.0, 1.0, 1.0), 1.0, 0.0, 1.5, 95),
        actors=tuple(_actor(sources, clip, part, aspect) for part in sorted(clip.parts, key=lambda part: part.y)),
    )


def _actor(sources: Sources, clip: DemoClip, part: Part, aspect: float) -> Actor:
    images = [ref for ref in sources.images(clip.split, part.category) if ref.endswith("/" + part.image)]
    sounds = [ref for ref in sources.sounds(clip.split, part.category) if ref.endswith(part.sound)]
    if not images or (part.sounds and not sounds):
        raise ConfigError(f"demo clip {clip.name!r}: {part.image} or its sound is not in split {clip.split!r}")
    voice = Voice(part.category, sounds[0], *part.sounds, gap=0.25, speed=1.0, gain=1.0) if part.sounds else None
    place = sources.catalogue.places.get(images[0], "ground")
    return Actor(
        category=part.category,
        ref=images[0],
        place=place,
        x=part.x * aspect,
        y=part.y,
        height=part.height,
        flip=part.flip,
        gains=(1.0, 1.0, 1.0),
        motion=part.motion,
        sunk=0.04 if place == "water" else 0.0,
        voice=voice,
    )


def write_demo(sources: Sources, folder: Path) -> dict[str, Any]:
    """Render every demo clip as `NAME.mp4` with `truth.json` and `SOURCES.md` beside them; returns the truth.

    Pictures, sound and truth are deterministic; the encoder's bytes depend on its build.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth = {clip.name: _write_clip(sources, clip, folder / f"{clip.name}.mp4") for clip in DEMO_CLIPS}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1, sort_keys=True) + "\n")
    (folder / "SOURCES.md").write_text(_attribution(truth))
    return truth


def _write_clip(sources: Sources, clip: DemoClip, path: Path) -> dict[str, Any]:
    """Encode one clip (H.264 and AAC) and return its truth: the objects of the frames shown at t + 0.9375 s."""
    composer, scene = demo_composer(sources, clip), demo_scene(sources, clip)
    sound = composer.sound(scene)
    labelled = {int((second + FRAME_PHASE) * FPS) for second in range(SECONDS)}
    shown = []
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "22", "preset": "slow", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        for index, (_, picture, visible) in enumerate(composer.render(scene, HEIGHT, WIDTH)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
            if index in labelled:
                shown.append(visible)
        container.mux(video.encode(None))
        container.mux(audio.encode(_audio_frame(sound.waveform)))
        container.mux(audio.encode(None))
    objects = [
        {
            "category": actor.category,
            "image": actor.ref,
            "sound": actor.voice.ref if actor.voice else None,
            "sounding": [bool(track.sounding[second]) if track else False for second in range(SECONDS)],
            "counts": [masks.encode(visible[index])["counts"].decode("ascii") for visible in shown],
        }
        for index, (actor, track) in enumerate(zip(scene.actors, sound.tracks, strict=True))
    ]
    return {
        "shows": clip.shows,
        "split": clip.split,
        "background": scene.background.ref,
        "height": HEIGHT,
        "width": WIDTH,
        "seconds": SECONDS,
        "objects": objects,
    }


def _audio_frame(waveform: Float32[np.ndarray, " n"]) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, 0, Fraction(1, AUDIO_RATE)
    return frame


def _attribution(truth: dict[str, Any]) -> str:
    """Every picture, sound and place of the clips with its package, path and licence."""
    lines = [
        "# Demo clips and where they come from",
        "",
        "Composites of photographs and recordings out of Debian packages, made by `python -m jobs.demo_clips`.",
        "All sources are held out: none is in the training split. Changes: cut out, scaled, moved, re-coloured;",
        "sounds repeated and levelled. `truth.json` holds the masks (COCO run-length codes) of the frames shown",
        "at 0.9375 s of each second.",
        "",
    ]
    for name, clip in truth.items():
        lines += [f"## {name}.mp4: {clip['shows']}", "", "| what | package | path | licence |", "|---|---|---|---|"]
        rows = [("background", clip["background"])]
        for one in clip["objects"]:
            rows += [(f"picture: {one['category']}", one["image"])]
            rows += [(f"sound: {one['category']}", one["sound"])] if one["sound"] else []
        for what, ref in rows:
            package, _, path = ref.partition(":")
            lines.append(f"| {what} | {package} | `{path}` | {LICENCES[package]} |")
        lines.append("")
    return "\n".join(lines)
