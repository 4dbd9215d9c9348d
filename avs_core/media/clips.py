"""Unit to clip: read the part of the file that a unit needs, pick its frames, lay out its sound."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import Int64

from avs_core.clip import AUDIO_RATE, Clip, Unit
from avs_core.errors import CorruptMedia, NoAudioStream, TruncatedMedia
from avs_core.media.config import Backend, DecodeConfig
from avs_core.media.decord_backend import choose_backend, decode_with_decord, decord_is_exact
from avs_core.media.picture import Painter
from avs_core.media.probe import Survey, survey
from avs_core.media.pyav_backend import (
    FrameClock,
    Pictures,
    PlanError,
    decode_planned,
    decode_sequential,
    new_pictures,
    target_ticks,
)
from avs_core.media.sampling import to_us, wanted_times
from avs_core.media.soundtrack import Soundtrack
from avs_core.media.source import AnyPacket, Beat, ignore_beat, is_local, local_path, open_media, packets, prepare

PADDED_S = 0.1
"""Sound that is missing in one second and is worth a flag."""

STEPS_BACK_S = (2, 10, 60)
"""How far before a unit reading starts; further when no key frame lies there, and at last from the file's beginning."""

GUESSED_TIMES = ("mpeg", "mpegvideo")
"""Containers that time few of their packets: which frames are between two times depends on where reading began."""

BEHIND_S = 1
"""Sound must be whole so many seconds behind the last one that is looked at, too."""

HEAD_S = 2
"""Sound that does not show up within this much picture has ended before."""


def decode_clip(unit: Unit, config: DecodeConfig, max_pixels: int, beat: Beat = ignore_beat) -> Clip:
    """Decode one unit in this process. Raises the MediaError that says what is wrong with the file, or StorageError."""
    uri = unit.video.uri
    with open_media(uri, beat) as container:
        found = survey(container, uri, max_pixels, beat)
    if config.audio == "dead" and not found.info.has_audio:
        raise NoAudioStream(
            f"a video needs sound under the policy audio=dead; {uri} has none: choose audio=silence to segment it"
        )
    wanted_us = to_us(wanted_times(unit.start_s, unit.stop_s, config.rate))
    job = _Job(unit, config, found, target_ticks(wanted_us.reshape(-1), found.tick, found.zero), beat)
    return _clip(job, *_read_somehow(job, max_pixels))


def _read_somehow(job: "_Job", max_pixels: int) -> "tuple[Pictures, Soundtrack | None]":
    """By the chosen backend; by decoding every frame where it finds that its plan does not work out."""
    chosen = job.config.backend
    if chosen == "auto":
        chosen = choose_backend(job.found.info)
    if chosen == "decord" and not (decord_is_exact(job.found.info) and is_local(job.unit.video.uri)):
        chosen = "pyav"
    if not job.found.has_pts:
        chosen = "pyav-sequential"
    try:
        return _read(job, max_pixels, chosen)
    except PlanError:
        return _read(job, max_pixels, "pyav-sequential")


@dataclass(frozen=True)
class _Job:
    unit: Unit
    config: DecodeConfig
    found: Survey
    targets: Int64[np.ndarray, " n"]
    beat: Beat

    @property
    def heard_s(self) -> tuple[int, int]:
        """From when to when the unit's sound is decoded: what a cut must not take from its first and last looks."""
        before, after = self.config.sound_margins_s
        return self.unit.start_s - before, self.unit.stop_s + after

    @property
    def own_s(self) -> tuple[float, float]:
        """From when to when damage is the unit's; the last one answers for what lasts a little longer than it."""
        start_s, stop_s = float(self.unit.start_s), float(self.unit.stop_s)
        return start_s, stop_s + BEHIND_S if stop_s >= self.found.info.seconds else stop_s

    @property
    def span(self) -> tuple[int, int]:
        """The unit's first tick, and the first after it."""
        ends = np.array([self.unit.start_s, self.unit.stop_s]) * 1_000_000
        start, stop = target_ticks(ends, self.found.tick, self.found.zero).tolist()
        return start, stop

    def seconds(self, ticks: int) -> Fraction:
        """Ticks as seconds of the video clock."""
        return (ticks - self.found.zero) * self.found.tick


def _read(job: _Job, max_pixels: int, backend: Backend) -> tuple[Pictures, Soundtrack | None]:
    height, width = job.config.shape
    for step_s in chain(STEPS_BACK_S if job.unit.start_s and backend != "decord" else (), (None,)):
        with open_media(job.unit.video.uri, job.beat) as container:
            feed = _Feed(container, job, max_pixels)
            if not feed.start(step_s):
                continue
            pictures, painter = new_pictures(len(job.targets), height, width), Painter(height, width)
            context = feed.video.codec_context
            if backend == "pyav":
                decode_planned(feed.pictures(), context, job.targets, job.found.zero, painter, pictures)
            elif backend == "decord":
                pictures.seen += [packet.pts for packet in feed.everything() if packet.pts is not None]
                decode_with_decord(local_path(job.unit.video.uri), job.targets, job.found.zero, pictures)
            else:
                clock = FrameClock(not job.found.has_pts, job.found.step)
                decode_sequential(feed.pictures(), context, job.targets, job.span[1], clock, painter, pictures)
            feed.finish_sound()
            if step_s is not None:
                pictures.leading = 0  # what a key frame in the middle of a file shows first may need the frames before
            return pictures, feed.sound
    raise CorruptMedia(f"a video needs a key frame at its start; {job.unit.video.uri} has none: convert it")


class _Feed:
    """Reads a part of a file once: pictures to whoever asks, sound to its track on the way."""

    def __init__(self, container: InputContainer, job: _Job, max_pixels: int) -> None:
        self._container, self._job = container, job
        found = job.found
        self.video = next(stream for stream in container.streams.video if stream.index == found.video)
        prepare(self.video, max_pixels)
        audio = next((stream for stream in container.streams.audio if stream.index == found.audio), None)
        self._streams: tuple[VideoStream | AudioStream, ...] = (self.video, audio) if audio else (self.video,)
        self.sound: Soundtrack | None = None
        if audio:
            zero_s = found.zero * found.tick
            self.sound = Soundtrack(audio, zero_s, job.heard_s, job.own_s, found.info.duration_s, found.lead)
        self._packets: Iterator[AnyPacket] = iter(())
        self._from_start = False

    def start(self, step_s: int | None) -> bool:
        """Go to the unit's start, or `step_s` before it. False if what is needed begins still earlier."""
        if self.sound and self.sound.wanted_from_start:
            step_s = None
        if step_s is not None:
            first_s = float(self._job.seconds(min(int(self._job.targets[0]), self._job.found.last)))
            sound_s = self.sound.wanted_from_s if self.sound else first_s
            back = math.floor((min(first_s, sound_s) - step_s) / self._job.found.tick)
            # There is nothing to see before the first frame, and ffmpeg refuses an AVI's negative times.
            self._container.seek(self._job.found.zero + max(back, 0), stream=self.video)
        everything = packets(self._container, self._streams, self._job.unit.video.uri, self._job.beat)
        if step_s is None:
            self._packets, self._from_start = everything, True
            return True
        head = self._head(everything)
        self._packets = chain(head, everything)
        return self._reaches(head)

    def _head(self, everything: Iterator[AnyPacket]) -> list[AnyPacket]:
        """The first packets: up to a key frame, and to the first sound if there is any near."""
        head: list[AnyPacket] = []
        key: int | None = None
        heard = self.sound is None
        for packet in everything:
            head.append(packet)
            if packet.pts is None:
                continue
            if packet.stream.index != self.video.index:
                heard = True
            elif key is None and packet.is_keyframe:
                key = packet.pts
            if key is not None and (heard or (packet.pts - key) * (packet.time_base or 0) > HEAD_S):
                break
        return head

    def _reaches(self, head: list[AnyPacket]) -> bool:
        """Whether the first key frame and the first sound come early enough; drops pictures before that frame."""
        pictures = [packet for packet in head if packet.stream.index == self.video.index]
        sounds = [packet for packet in head if packet.stream.index != self.video.index and packet.pts is not None]
        key = next((packet for packet in pictures if packet.is_keyframe and packet.pts is not None), None)
        if key is None or key.pts is None or key.pts > self._job.span[0]:
            return False
        return not sounds or self.sound is None or self.sound.reached_by(sounds[0])

    def pictures(self) -> Iterator[AnyPacket]:
        """Packets of the picture, from the first key frame to the last one that is shown within the unit."""
        stop = self._job.span[1]
        begun = self._from_start
        for packet in self._packets:
            if packet.stream.index != self.video.index:
                self._hear(packet)
            elif packet.size:
                begun = begun or packet.is_keyframe
                if packet.dts is not None and packet.dts >= stop:
                    return
                if begun:
                    yield packet

    def everything(self) -> Iterator[AnyPacket]:
        """Packets of the whole picture that are shown, for a backend that numbers frames."""
        for packet in self._packets:
            if packet.stream.index != self.video.index:
                self._hear(packet)
            elif packet.size and not packet.is_discard:
                yield packet

    def _hear(self, packet: AnyPacket) -> None:
        if self.sound:
            self.sound.feed(packet)

    def finish_sound(self) -> None:
        """Read on until the track has all it needs."""
        while self.sound and not self.sound.done and (packet := next(self._packets, None)) is not None:
            if packet.stream.index != self.video.index:
                self._hear(packet)


def _counted(job: _Job, pictures: Pictures) -> tuple[Int64[np.ndarray, " n"], int | None]:
    """`frame_index` and `shown` of a clip."""
    if job.found.info.container in GUESSED_TIMES:
        return np.full(len(pictures.pts), -1), None
    return pictures.positions(job.found.zero, *job.span)


def _clip(job: _Job, pictures: Pictures, sound: Soundtrack | None) -> Clip:
    """Lay the pieces out, after deciding whether they are good enough."""
    _check_errors(job, pictures, sound)
    unit, info = job.unit, job.found.info
    shape = (unit.stop_s - unit.start_s, job.config.rate)
    flags = set()
    heard_from_s, heard_to_s = job.heard_s
    if sound:
        waveform, missing_s = sound.finish()
        flags |= {"audio_padded"} if missing_s > PADDED_S else set()
    else:
        waveform = np.zeros((heard_to_s - heard_from_s) * AUDIO_RATE, dtype=np.float32)
        flags.add("no_audio")
    flags |= {"resolution_change"} if pictures.sizes - {(info.height, info.width)} else set()
    flags |= {"damaged"} if pictures.leading else set()
    position, shown = _counted(job, pictures)
    times = [round(job.seconds(pts) * 1_000_000) for pts in pictures.pts.tolist()]
    return Clip(
        frames=pictures.images.reshape(*shape, *pictures.images.shape[1:]),
        frame_index=position.reshape(shape),
        frame_time_us=np.array(times, dtype=np.int64).reshape(shape),
        waveform=waveform,
        audio_start_s=float(heard_from_s),
        shown=shown,
        height=info.height,
        width=info.width,
        flags=tuple(sorted(flags)),
    )


def _check_errors(job: _Job, pictures: Pictures, sound: Soundtrack | None) -> None:
    """Raises TruncatedMedia if only the file's end is broken, CorruptMedia if anything else is."""
    failed = {"picture": pictures.errors, "sound": sound.errors if sound else 0}
    if not any(failed.values()):
        return
    where = f"[{job.unit.start_s}, {job.unit.stop_s}) s of {job.unit.video.uri}"
    if failed["picture"] <= pictures.failed_last and failed["sound"] <= (sound.failed_last if sound else 0):
        raise TruncatedMedia(f"a file must end with a whole packet; {where} ends within one: fetch it again")
    raise CorruptMedia(
        f"every packet of a file must be decodable; in {where} {failed['picture']} of the picture and "
        f"{failed['sound']} of the sound are not: fetch it again, or convert it"
    )
