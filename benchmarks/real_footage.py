"""`python -m benchmarks.real_footage --out docs/real_footage`: what a bundle does with real videos with sound.

Writes a page DIR.md and, into DIR, a strip of frames for each video that shows no private person. The videos come out
of distribution packages; none was trained on, tuned on or chosen by what a model makes of it: these are all that were
found.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from avs_core.clip import AUDIO_RATE, Clip, Unit
from avs_core.datasets.sources import fetch_package
from avs_core.media.decode import DecodeConfig, GuardedDecoder
from avs_core.models.bundle import load_bundle
from avs_core.models.segmenter import FramePrediction, ObjectMask, WindowSegmenter, open_segmenter
from avs_core.pipelines.inputs import listed_video
from avs_core.pipelines.segment_config import DEFAULT_MODEL
from avs_core.report.overlay import shown_size
from avs_core.tracking import resolve_model

RATE = 4
"""Frames looked at per second: the shortest video has 1.6 s."""

SHOWN, COLUMNS = 6, 3
"""Frames of a strip, and how many of them stand side by side."""

LINE = 16
"""Height of the line of text below a picture, pixels."""

LIT, SOUNDING, SILENT = (255, 120, 30), (255, 235, 60), (150, 200, 255)
"""Colours, RGB: object 0, and the outlines of objects that sound and that do not."""


@dataclass(frozen=True)
class Footage:
    """A real video with sound inside a package, and what a person makes of it.

    package  `NAME=VERSION`, sha256 of its archive, path inside it
    truth    what is seen, and what its level says of the sound
    private  it shows a person, whom a page that tells a model's mistakes should not: no pictures, the table alone
    """

    name: str
    package: str
    sha256: str
    path: str
    licence: str
    author: str
    truth: str
    private: bool = False


_SAMPLES = "forensics-samples-files=1.1.4-5"
_SAMPLES_SHA256 = "8710c751be1a71a88e343540ea1a5cab1fd349c2bcdf07626a27cfe68689e7c4"
_FILES = "usr/share/forensics-samples/original-files"

FOOTAGE = (
    Footage(
        name="dog",
        package=_SAMPLES,
        sha256=_SAMPLES_SHA256,
        path=f"{_FILES}/movie1/VID_20191220_170832.mp4",
        licence="CC-BY-SA-4.0",
        author="Joao Eriberto Mota Filho",
        truth="A white dog lies on the floor and looks on, filmed with a telephone; its mouth is hidden and nothing "
        "in the picture moves much. The sound is faint (−60 to −39 dB): nothing that is seen makes it for sure.",
    ),
    Footage(
        name="hello",
        package=_SAMPLES,
        sha256=_SAMPLES_SHA256,
        path=f"{_FILES}/movie2/movie-hello.mp4",
        licence="CC-BY-SA-4.0",
        author="Joao Eriberto Mota Filho",
        truth="A recorded screen with a terminal; in a corner, small, the camera's picture of a man with a headset. "
        "The sound reaches −25 dB in the first three seconds, as he faces the camera; then it is faint, and he types.",
        private=True,
    ),
)
"""Every video of a camera with sound, free to use, that was found in a package."""


@dataclass(frozen=True)
class Look:
    """A decoded video of `duration_s` and what was found in each of its frames, at the size that is shown."""

    clip: Clip
    duration_s: float
    found: tuple[FramePrediction, ...]

    @property
    def lit(self) -> float:
        """Share of the frames in which something sounds."""
        return sum(any(one.object_id == 0 for one in frame.masks) for frame in self.found) / len(self.found)


def main() -> None:
    """Fetch, look, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_footage", description="A bundle on real videos.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures; the page is written beside it")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a built-in bundle's name, or a bundle folder")
    args = parser.parse_args()
    videos = [(one, fetch_package(one.package, one.sha256) / one.path) for one in FOOTAGE]
    Console().print(f"written to {write_page(videos, args.model, args.out)}")


def write_page(videos: Sequence[tuple[Footage, Path]], model: str, out: Path) -> Path:
    """Look at all videos with a bundle and write the pictures into `out` and the page beside it; returns the page.

    Raises BundleError, and MediaError for a video that can't be read.
    """
    bundle = load_bundle(resolve_model(model))
    segmenter, size = open_segmenter(bundle, "cpu"), bundle.config.size
    out.mkdir(parents=True, exist_ok=True)
    rows, sections = [], []
    for footage, path in videos:
        seen = look(path, segmenter, size)
        rows.append(_row(footage, seen))
        below = "No pictures: it shows a person, and the table tells what the model took for what."
        if not footage.private:
            strip(seen).save(out / f"{footage.name}.jpg", quality=85)
            below = f"![{footage.name}]({out.name}/{footage.name}.jpg)"
        sections.append(f"## {footage.name}\n\n{footage.truth}\n\n{below}\n")
    page = out.with_name(f"{out.name}.md")
    page.write_text(_page(bundle.config.name, rows, sections), encoding="utf-8")
    return page


def look(path: Path, segmenter: WindowSegmenter, size: int) -> Look:
    """Decode the video as the main job does, `RATE` frames a second, and ask the model. Raises MediaError."""
    video = listed_video(str(path))
    with GuardedDecoder(DecodeConfig(size=size, rate=RATE, reach=segmenter.reach)) as decoder:
        info = decoder.probe(video.uri)
        clip = decoder.decode(Unit(video, 0, info.seconds))
    width, height = shown_size(clip.height, clip.width)
    found = {int(clip.frame_time_us[one.second, one.phase]): one for one in segmenter.segment(clip, 0, (height, width))}
    return Look(clip, info.duration_s, tuple(found.values()))  # the last frame, repeated up to a whole second, is one


def strip(seen: Look) -> Image.Image:
    """`SHOWN` frames spread over the video, painted, with time and level of the sound below each."""
    width, height = shown_size(seen.clip.height, seen.clip.width)
    places = np.unique(np.linspace(0, len(seen.found) - 1, SHOWN).round().astype(int)).tolist()
    whole = Image.new("RGB", (width * COLUMNS, (height + LINE) * -(-len(places) // COLUMNS)), "white")
    text, font = ImageDraw.Draw(whole), ImageFont.load_default(12)
    for number, place in enumerate(places):
        x, y = number % COLUMNS * width, number // COLUMNS * (height + LINE)
        frame = seen.found[place]
        at = frame.second, frame.phase
        picture = Image.fromarray(seen.clip.frames[at]).resize((width, height), Image.Resampling.LANCZOS)
        whole.paste(painted(picture, frame.masks), (x, y))
        time_s = float(seen.clip.frame_time_us[at]) / 1e6
        text.text((x + 4, y + height), f"{time_s:.2f} s, {level_db(seen.clip, time_s):.0f} dB", "black", font)
    return whole


def painted(picture: Image.Image, masks: Sequence[ObjectMask]) -> Image.Image:
    """What sounds in colour, each object outlined and named: category, its score, and how surely it sounds."""
    pixels = np.asarray(picture).copy()
    for one in masks:
        if one.object_id == 0:
            pixels[one.mask] = (pixels[one.mask] * 0.5 + np.array(LIT) * 0.5).astype(np.uint8)
    objects = [one for one in masks if one.object_id]
    for one in objects:
        pixels[_edge(one.mask)] = SOUNDING if one.sounding else SILENT
    drawn = Image.fromarray(pixels)
    text, font = ImageDraw.Draw(drawn), ImageFont.load_default(11)
    for place, one in enumerate(objects):
        label = f"{one.category} {one.category_score:.2f}, sounds {one.score:.2f}"
        colour = SOUNDING if one.sounding else SILENT
        text.text((3, 2 + 13 * place), label, colour, font, stroke_width=1, stroke_fill="black")
    return drawn


def _edge(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The pixels of a mask that touch the outside, or the picture's border."""
    around = np.pad(mask, 1)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    edge: Bool[np.ndarray, "H W"] = mask & ~inner
    return edge


def level_db(clip: Clip, time_s: float) -> float:
    """RMS of the half second around a time on the video clock, dB of full scale; −120 for silence."""
    first = round((time_s - 0.25 - clip.audio_start_s) * AUDIO_RATE)
    heard = clip.waveform[max(0, first) : max(0, first + AUDIO_RATE // 2)].astype(np.float64)
    power = float(np.square(heard).mean()) if heard.size else 0.0
    return 10 * float(np.log10(power + 1e-12))


def _row(footage: Footage, seen: Look) -> str:
    """A line of the table."""
    source = f"`{Path(footage.path).name}` of `{footage.package.replace('=', ' ')}`"
    cells = (
        footage.name,
        source,
        f"{footage.licence}, {footage.author}",
        f"{seen.duration_s:.1f} s",
        f"{seen.lit:.0%}",
        named(seen),
    )
    return f"| {' | '.join(cells)} |"


def named(seen: Look) -> str:
    """Each category with the share of frames in which it is seen, and in which it is said to sound."""
    masks = [{one.category: False for one in frame.masks if one.category} for frame in seen.found]
    for frame, kinds in zip(seen.found, masks, strict=True):
        kinds.update({one.category: True for one in frame.masks if one.category and one.sounding})
    shown = Counter(kind for kinds in masks for kind in kinds)
    sounding = Counter(kind for kinds in masks for kind, sounds in kinds.items() if sounds)
    n = len(seen.found)
    told = (f"{kind} {count / n:.0%} (sounds {sounding[kind] / n:.0%})" for kind, count in shown.most_common())
    return ", ".join(told) or "nothing"


def _page(model: str, rows: Sequence[str], sections: Sequence[str]) -> str:
    """The page in Markdown."""
    head = f"""# Real footage

What the bundle `{model}` does with every real video with sound that was found in packages: no threshold
was moved and none was left out. They are too few to measure anything; they show where training on composites ends.
Written by `python -m benchmarks.real_footage`, which fetches the videos. The pictures keep their videos' licence.

| video | source | licence, by | length | frames lit | objects seen, share of frames |
|---|---|---|---|---|---|
"""
    key = f"""
{RATE} frames a second are looked at, {SHOWN} are shown, with time and level of the sound. Orange: what is said to
sound. Outlines: objects, yellow those that are said to sound, blue the others; beside the category its score and how
surely the object sounds. The sentence above each strip says what a person sees, and what the level curve says of the
sound: nobody listened to it.

"""
    return head + "\n".join(rows) + "\n" + key + "\n".join(sections)


if __name__ == "__main__":
    main()
