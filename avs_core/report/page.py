"""The page of a run: the archive's rows joined with decoded frames, written as one HTML file that needs nothing else.

Everything that comes from outside (file names, messages, categories) is escaped by the template. The page stays under
`MOST_BYTES` and says what it leaves out.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from avs_core import masks, storage
from avs_core.archive.findings import Finding
from avs_core.archive.held import looks_with
from avs_core.archive.read import open_videos
from avs_core.clip import AUDIO_RATE, Clip, Instance, video_id_of
from avs_core.errors import ConfigError
from avs_core.report.overlay import BINS_PER_SECOND, Outline, curve, energy, jpeg_uri, outline, shown_size

MOST_BYTES = 9_000_000
"""Of the frames of a page; the rest of it is small."""

MOST_FINDINGS = 1000
MOST_DEAD = 200

COLOURS = 8
"""Colours for instances 1, 2, …; object 0 has one of its own."""


@dataclass(frozen=True)
class FrameShot:
    """A frame that was looked at, and what the archive holds of it.

    picture         (h, w, 3) uint8 RGB at the model's size
    height, width   of the source frame as displayed
    looked_at       False for a frame that the archive does not speak of (its unit is dead, or not done yet)
    """

    time_us: int
    picture: UInt8[np.ndarray, "h w 3"]
    height: int
    width: int
    instances: tuple[Instance, ...] = ()
    looked_at: bool = True

    @property
    def sounding(self) -> bool:
        """Whether anything in it sounds."""
        return any(instance.sounding and instance.area for instance in self.instances)


@dataclass(frozen=True)
class VideoSection:
    """What the page shows of one video.

    frames    evenly spaced over the part that is shown, each standing for `frame_s` seconds from `start_s` on
    energy    RMS of the sound, `BINS_PER_SECOND` a second from `start_s` on, 0..1
    flags     of the decoding
    left_out  frames between those that are shown
    """

    uri: str
    frames: list[FrameShot]
    energy: tuple[float, ...]
    flags: tuple[str, ...] = ()
    start_s: float = 0.0
    frame_s: float = 1.0
    left_out: int = 0

    @property
    def name(self) -> str:
        """The last part of the URI."""
        return self.uri.rpartition("/")[2]


@dataclass(frozen=True)
class ReportFacts:
    """What a run was and did, for the head of the page. `seconds` it took, `video_seconds` it looked at.

    `videos_left_out` counts videos that were segmented but have no section, `pending` those with which it had work.
    """

    title: str
    archive: str
    run_key: str
    model: str
    weights_sha256: str
    videos: int
    video_seconds: float | int
    frames: int
    instances: int
    dead: int
    seconds: float | int
    settings: Mapping[str, object] = field(default_factory=dict)
    videos_left_out: int = 0
    pending: int = 0


@dataclass(frozen=True)
class VideoRows:
    """The archive's answer for one video: its frames' times in order, and the instances found in each."""

    frames: tuple[tuple[int, tuple[Instance, ...]], ...]


def section(
    archive_uri: str, run_key: str, video_uri: str, clip: Clip, start_s: float | int, most_frames: int = 24
) -> VideoSection:
    """What the archive holds of a decoded clip that starts at `start_s` of the video clock.

    Opens the archive anew: for many videos call `read_rows` once and `join` for each.
    """
    rows = read_rows(archive_uri, run_key, [video_uri])
    return join(video_uri, rows[video_uri], clip, start_s, most_frames)


def read_rows(archive_uri: str, run_key: str, video_uris: Sequence[str]) -> dict[str, VideoRows]:
    """The frames and instances of some videos. A video that the run does not hold has no frames."""
    found, looked = open_videos(archive_uri, run_key, map(video_id_of, video_uris))
    frames_of, instances_of = _grouped(looked.to_table().to_pylist()), _grouped(found.to_table().to_pylist())
    return {uri: VideoRows(tuple(_answers(frames_of[uri], instances_of[uri]))) for uri in video_uris}


def join(uri: str, rows: VideoRows, clip: Clip, start_s: float | int, most_frames: int = 24) -> VideoSection:
    """The section of one video: every `n`-th frame of the clip with what was found at its time."""
    if most_frames < 1:
        raise ConfigError(f"a section needs room for at least one frame, got most_frames={most_frames}")
    seconds, rate = clip.frames.shape[:2]
    times = clip.frame_time_us.reshape(-1).tolist()
    pictures = clip.frames.reshape(-1, *clip.frames.shape[2:])
    answers = _in_turn(rows, times)
    step = math.ceil(len(times) / most_frames)
    shown = [min(first + step // 2, len(times) - 1) for first in range(0, len(times), step)]
    return VideoSection(
        uri=uri,
        frames=[_shot(times[at], pictures[at], clip, answers[at]) for at in shown],
        energy=energy(clip.waveform, round((start_s - clip.audio_start_s) * AUDIO_RATE), seconds),
        flags=clip.flags,
        start_s=float(start_s),
        frame_s=step / rate,
        left_out=len(times) - len(shown),
    )


def _shot(
    time_us: int, picture: UInt8[np.ndarray, "h w 3"], clip: Clip, answer: tuple[Instance, ...] | None
) -> FrameShot:
    # A copy, since a view would keep the whole clip as long as the page is made.
    return FrameShot(time_us, picture.copy(), clip.height, clip.width, answer or (), looked_at=answer is not None)


def _grouped(rows: Iterable[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    grouped = defaultdict(list)
    for row in rows:
        grouped[row["video_uri"]].append(row)
    return grouped


def _answers(
    looked: Iterable[dict[str, Any]], found: Iterable[dict[str, Any]]
) -> Iterable[tuple[int, tuple[Instance, ...]]]:
    """Each frame's time with its instances; see avs_core.archive.held for a frame that stands for several seconds."""
    looks = sorted(looked, key=lambda row: (row["second"], row["phase"]))
    at: dict[int, list[int]] = defaultdict(list)
    for place, look in enumerate(looks):
        at[look["frame_time_us"]].append(place)
    waiting: dict[tuple[int, int], list[Instance]] = defaultdict(list)
    for row in found:
        waiting[row["frame_time_us"], row["object_id"]].append(_instance(row))
    answers: list[list[Instance]] = [[] for _ in looks]
    for (time, _), instances in sorted(waiting.items(), key=lambda item: item[0]):
        places = at[time]
        having = looks_with([looks[place]["n_instances"] for place in places], len(instances))
        for which, instance in zip(having, instances, strict=False):
            answers[places[which]].append(instance)
    for look, answer in zip(looks, answers, strict=True):
        yield look["frame_time_us"], tuple(answer)


def _in_turn(rows: VideoRows, times: Sequence[int]) -> list[tuple[Instance, ...] | None]:
    """The instances at each time, None where there is no frame; a time that comes again takes the next frame of it."""
    queues: dict[int, list[tuple[Instance, ...]]] = defaultdict(list)
    for time, instances in rows.frames:
        queues[time].append(instances)
    return [queues[time].pop(0) if queues[time] else None for time in times]


def _instance(row: Mapping[str, Any]) -> Instance:
    return Instance(
        bbox=(row["x0"], row["y0"], row["w"], row["h"]),
        **{
            name: row[name]
            for name in (
                "object_id", "counts", "height", "width", "area", "score", "sounding",
                "category", "category_score", "audio_score",
            )
        },
    )  # fmt: skip


def write_page(
    path: Path, facts: ReportFacts, sections: Sequence[VideoSection], findings: Sequence[Finding], dead: pa.Table
) -> None:
    """Write the page, whole or not at all. Sections beyond `MOST_BYTES` are left out, and counted on the page."""
    shown = list(_within(MOST_BYTES, sections))
    anchors = {drawn["uri"]: drawn["anchor"] for drawn in shown}
    html = _template().render(
        facts=facts,
        settings=list(_flat(facts.settings)),
        sections=shown,
        videos_left_out=facts.videos_left_out + len(sections) - len(shown),
        findings=findings[:MOST_FINDINGS],
        findings_left_out=max(0, len(findings) - MOST_FINDINGS),
        anchors=anchors,
        dead=dead.slice(0, MOST_DEAD).to_pylist(),
        dead_left_out=max(0, dead.num_rows - MOST_DEAD),
    )
    storage.write_bytes(str(path), html.encode())


def _flat(settings: Mapping[str, object], above: str = "") -> Iterable[tuple[str, object]]:
    """Each setting by the name of its flag; what nobody set is the bundle's, or the machine's."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", "not set" if value is None else value


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(span=spoken_span, clock=clock)
    return environment.get_template("page.html")


def spoken_span(seconds: float | int) -> str:
    """Seconds as a person says them: 8.4 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock(seconds: float) -> str:
    """A time of the video clock as 0:02.94 or 1:02:05.94."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    ending = f"{rest // 100:02d}.{rest % 100:02d}"
    return f"{hours}:{minutes:02d}:{ending}" if hours else f"{minutes}:{ending}"


def _within(most_bytes: int, sections: Iterable[VideoSection]) -> Iterable[dict[str, Any]]:
    """The sections as the template takes them, as long as they fit."""
    for number, one in enumerate(sections):
        drawn = _drawn_section(one, f"video-{number + 1}")
        most_bytes -= sum(frame["bytes"] for frame in drawn["frames"])
        if most_bytes < 0:
            return
        yield drawn


def _drawn_section(one: VideoSection, anchor: str) -> dict[str, Any]:
    objects = _names(one.frames)
    bins_per_frame = one.frame_s * BINS_PER_SECOND
    return {
        "uri": one.uri,
        "name": one.name,
        "anchor": anchor,
        "flags": one.flags,
        "frames": [{"place": place, **_drawn_frame(frame)} for place, frame in enumerate(one.frames)],
        "sounding": sum(frame.sounding for frame in one.frames),
        "left_out": one.left_out,
        "frame_s": one.frame_s,
        "legend": [_legend(object_id, category) for object_id, category in sorted(objects.items()) if object_id],
        "curve": curve(one.energy),
        "bins": bins_per_frame * len(one.frames),
        "second_marks": [at * bins_per_frame for at in range(1, len(one.frames))],
        "loudest_db": _decibels(max(one.energy, default=0.0)),
    }


def _names(frames: Sequence[FrameShot]) -> dict[int, str | None]:
    """What each object is called: as most often, first of all in the frames in which it sounds."""
    names: dict[int, Counter[str | None]] = defaultdict(Counter)
    seen = sum(len(frame.instances) for frame in frames)
    for instance in (instance for frame in frames for instance in frame.instances):
        names[instance.object_id][instance.category] += 1 + seen * instance.sounding
    return {object_id: counts.most_common(1)[0][0] for object_id, counts in names.items()}


def _drawn_frame(frame: FrameShot) -> dict[str, Any]:
    size = shown_size(frame.height, frame.width)
    picture = jpeg_uri(frame.picture, size)
    drawn = [_drawn_instance(instance, size) for instance in frame.instances]
    union = next((instance for instance in frame.instances if instance.object_id == 0), None)
    return {
        "seconds": frame.time_us / 1e6,
        "picture": picture,
        "width": size[0],
        "height": size[1],
        "instances": drawn,
        "several": any(instance.object_id for instance in frame.instances),
        "sounding": frame.sounding,
        "looked_at": frame.looked_at,
        "score": union.score if union else None,
        "share": union.area / (union.height * union.width) if union else None,
        "bytes": len(picture) + sum(len(one["outline"].path) for one in drawn),
    }


def _drawn_instance(instance: Instance, size: tuple[int, int]) -> dict[str, Any]:
    drawn: Outline = outline(masks.from_row(instance.counts, instance.height, instance.width), size)
    return {
        **_legend(instance.object_id, instance.category),
        "whole": instance.object_id == 0,
        "outline": drawn,
        "sounding": instance.sounding,
    }


def _legend(object_id: int, category: str | None) -> dict[str, Any]:
    """Colour 0 is the union's; instances take turns in the others."""
    colour = (object_id - 1) % COLOURS + 1 if object_id else 0
    name = f"{category or 'object'} {object_id}" if object_id else "everything that sounds"
    return {"colour": colour, "name": name}


def _decibels(level: float) -> float | None:
    """Level in dB of full scale, None for silence."""
    return 20 * math.log10(level) if level > 0 else None
