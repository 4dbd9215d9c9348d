"""What a file is before it is decoded: streams, size, duration, and whether its end is there.

The zero of the video clock is the PTS of the first frame that a decoder shows, so one frame is decoded here.
The end is read from the last packets, not from the header: a header may promise more than the file holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from avs_core.errors import CorruptMedia, MediaTooLarge, NoVideoStream, TruncatedMedia, UnreadableMedia
from avs_core.media.picture import displayed_size, turn_of
from avs_core.media.sampling import seconds_of
from avs_core.media.source import AnyPacket, Beat, ignore_beat, open_media, packets, pass_on_memory, prepare

TAIL_S = 3
"""The last packets are looked for this many seconds before the header's end."""

END_TOLERANCE_S = 0.5
"""A file that ends this much before its header's end is truncated; muxers round."""

KNOWS_END = ("matroska", "mp4", "avi")
"""Containers whose header tells their duration; ffmpeg estimates it for the others from what is there."""

AVI_FRAMES = 64
"""How many packets are decoded to learn whether the PTS of an AVI can be trusted."""

FIRST_SOUNDS = 16
"""Packets of sound of which one must give a frame."""

LAST_ENTRIES = 256
"""How many of an index's last entries are compared with the file's size."""

DEFAULT_BONUS = 5_000_000
"""Pixels that a stream marked as default is worth when the largest is chosen; ffmpeg's own figure."""


@dataclass(frozen=True)
class MediaInfo:
    """What is known of a video before decoding it.

    duration_s      last frame's PTS + its duration − first frame's PTS
    seconds         how many seconds of it are looked at
    width, height   as displayed, after rotation
    fps             mean frames per second by the header, None if unknown
    n_frames        by the header, None if it does not say
    rotation        degrees counter-clockwise by which decoded frames are turned for display: 0, 90, 180, 270
    """

    container: str
    codec: str
    duration_s: float
    seconds: int
    width: int
    height: int
    fps: float | None
    n_frames: int | None
    rotation: int
    has_audio: bool
    audio_codec: str | None = None
    audio_rate: int | None = None
    audio_channels: int | None = None


@dataclass(frozen=True)
class Survey:
    """Which streams of a file are used and where their clock starts.

    video, audio  indices of the streams; None without sound
    zero, last    PTS of the first and the last frame, in `tick` seconds
    lead          samples of the first frame of sound, where the clock is too coarse to count them; else None
    step          ticks from one frame to the next where nothing better is known
    has_pts       the packets tell when their frames are shown; if not, frames go by their DTS
    """

    info: MediaInfo
    video: int
    audio: int | None
    zero: int
    last: int
    tick: Fraction
    lead: int | None
    step: int
    has_pts: bool


def probe(source: str, max_pixels: int = 8192 * 4320, max_hours: float = 100.0, beat: Beat = ignore_beat) -> MediaInfo:
    """Open, look, close. Raises the MediaError that says what is wrong with the file, or StorageError."""
    with open_media(source, beat) as container:
        info = survey(container, source, max_pixels, beat).info
    if info.duration_s > max_hours * 3600:
        raise MediaTooLarge(
            f"a video may last at most {max_hours:g} hours; {source} says {info.duration_s / 3600:.0f}: "
            f"raise --max-video-hours if the file is honest, or cut it"
        )
    return info


def survey(container: InputContainer, source: str, max_pixels: int, beat: Beat) -> Survey:
    """Streams, clock and end of an open file; the read position is anywhere afterwards."""
    video = _video_stream(container, source)
    _check_size(video.codec_context.width, video.codec_context.height, max_pixels, source)
    prepare(video, max_pixels)
    audio = _audio_stream(container)
    _check_index(container, video, source)
    first = _first_frame(container, video, source, beat)
    _check_size(first.width, first.height, max_pixels, source)
    has_pts = "avi" not in container.format.name or _ascends(container, video, source, beat)
    lead = _first_sound(container, audio, source, beat) if audio else None
    zero = (first.pts if has_pts else first.dts) or 0
    end, last = _end_of(container, video, _Tail(video, zero, has_pts), source, beat)
    duration_s = float((end - zero) * _tick(video))
    turn = turn_of(first)
    height, width = displayed_size(first, turn)
    context = audio.codec_context if audio else None
    info = MediaInfo(
        container=container.format.name,
        codec=video.codec_context.name,
        duration_s=duration_s,
        seconds=seconds_of(duration_s),
        width=width,
        height=height,
        fps=float(video.average_rate) if video.average_rate else None,
        n_frames=video.frames or None,
        rotation=turn.degrees,
        has_audio=audio is not None,
        audio_codec=context.name if context else None,
        audio_rate=context.sample_rate if context else None,
        audio_channels=context.layout.nb_channels if context else None,
    )
    return Survey(
        info, video.index, audio.index if audio else None, zero, last, _tick(video), lead, _step(video), has_pts
    )


def _video_stream(container: InputContainer, source: str) -> VideoStream:
    """The largest moving picture, as ffmpeg chooses; cover art is none."""
    still = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & still]
    if streams and not any(map(_has_decoder, streams)):
        raise UnreadableMedia(f"a video's codec must be known to ffmpeg; that of {source} is not: convert it")
    streams = list(filter(_has_decoder, streams))
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise NoVideoStream(f"a video needs a video stream; {source} has only: {kinds}; leave it out of the input")

    def worth(stream: VideoStream) -> int:
        default = bool(stream.disposition & av.stream.Disposition.default)
        return stream.codec_context.width * stream.codec_context.height + DEFAULT_BONUS * default

    chosen = max(streams, key=worth)
    if not chosen.codec_context.width:
        raise NoVideoStream(
            f"a video stream needs a picture size; that of {source} ({chosen.codec_context.name}) shows none: "
            f"the stream is empty or its header is damaged"
        )
    return chosen


def _has_decoder(stream: Stream) -> bool:
    """PyAV leaves the context out where there is none, which its stubs do not say."""
    return getattr(stream, "codec_context", None) is not None


def _audio_stream(container: InputContainer) -> AudioStream | None:
    """The stream with most channels, the default one first, as ffmpeg chooses; None if none can be decoded."""
    streams = [s for s in container.streams.audio if _has_decoder(s) and s.codec_context.sample_rate]

    def worth(stream: AudioStream) -> int:
        default = bool(stream.disposition & av.stream.Disposition.default)
        return stream.codec_context.layout.nb_channels + DEFAULT_BONUS * default

    return max(streams, key=worth, default=None)


def _check_size(width: int, height: int, max_pixels: int, source: str) -> None:
    if width * height > max_pixels:
        raise MediaTooLarge(
            f"a frame may have at most {max_pixels} pixels; {source} has {width}×{height} = {width * height}; "
            f"raise --max-pixels (and --decode-memory-mb) if the file is honest"
        )


def _check_index(container: InputContainer, video: VideoStream, source: str) -> None:
    """MP4's index tells where each frame lies: was the file cut off?"""
    if "mp4" not in container.format.name or not len(video.index_entries):
        return
    entries = video.index_entries
    end = max(entries[i].pos + entries[i].size for i in range(max(len(entries) - LAST_ENTRIES, 0), len(entries)))
    if end > container.size > 0:
        raise TruncatedMedia(
            f"a file must hold all frames of its index; {source} ends at byte {container.size} of {end}: fetch it again"
        )


def _first_frame(container: InputContainer, video: VideoStream, source: str, beat: Beat) -> av.VideoFrame:
    """The first frame that a decoder shows; packets before it may fail (a recording that starts anywhere)."""
    errors = 0
    for packet in packets(container, (video,), source, beat):
        try:
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    return frame
        except av.FFmpegError as error:
            pass_on_memory(error, video.codec_context.width * video.codec_context.height)
            errors += 1
    raise CorruptMedia(
        f"a video needs at least one frame that can be decoded; {source} ({video.codec_context.name}) has none, "
        f"{errors} packets failed: convert or drop it"
    )


def _ascends(container: InputContainer, video: VideoStream, source: str, beat: Beat) -> bool:
    """Whether the PTS that ffmpeg guessed for an AVI hold: MPEG-4's parser knows its B-frames, but not packed ones."""
    if video.codec_context.name != "mpeg4":
        return False
    last = (video.start_time or 0) - 1
    for packet in islice(packets(container, (video,), source, beat), AVI_FRAMES):
        try:
            frames = video.codec_context.decode(packet if packet.size else None)
        except av.FFmpegError as error:
            pass_on_memory(error, video.codec_context.width * video.codec_context.height)
            return False
        for frame in frames:
            if frame.pts is None or frame.pts <= last or frame.pts != frame.dts:
                return False
            last = frame.pts
    return True


def _first_sound(container: InputContainer, audio: AudioStream, source: str, beat: Beat) -> int | None:
    """Samples of the first frame of sound, if the container's clock ticks more slowly than the samples (Matroska)."""
    if audio.time_base is None or audio.time_base * audio.codec_context.sample_rate <= 1:
        return None
    container.seek(container.start_time or 0)
    for packet in islice(packets(container, (audio,), source, beat), FIRST_SOUNDS):
        try:
            for frame in audio.codec_context.decode(packet if packet.size else None):
                return frame.samples
        except av.FFmpegError as error:
            pass_on_memory(error)
            return None
    return None


class _Tail:
    """What the last packets tell. `last` is when the last frame is shown, on the clock that starts at `zero`."""

    def __init__(self, video: VideoStream, zero: int, has_pts: bool) -> None:
        self._video = video.index
        self.zero = zero
        self._has_pts = has_pts
        self.last: int | None = None
        self.last_duration = 0
        self.end_s = 0.0
        self.damaged = False
        self.encrypted = False

    def read(self, found: Iterator[AnyPacket]) -> None:
        """Take in the packets up to the end of the file."""
        for packet in found:
            if packet.pts is None or packet.is_discard:
                continue
            self.end_s = max(self.end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            self.damaged = packet.is_corrupt or (self.damaged and packet.stream.type not in ("video", "audio"))
            if packet.stream_index == self._video:
                self.encrypted |= packet.has_sidedata("encryption_info")
                shown = self._shown(packet)
                if self.last is None or shown > self.last:
                    self.last, self.last_duration = shown, packet.duration or 0

    def _shown(self, packet: AnyPacket) -> int:
        if self._has_pts or packet.dts is None:
            return packet.pts or 0
        return self.zero + packet.dts - (packet.stream.start_time or 0)


def _end_of(container: InputContainer, video: VideoStream, tail: _Tail, source: str, beat: Beat) -> tuple[int, int]:
    """(end, last PTS) of the picture in its time base. Raises TruncatedMedia, CorruptMedia."""
    if container.duration:
        start = container.start_time or 0
        container.seek(max(start, start + container.duration - TAIL_S * av.time_base))
        tail.read(packets(container, (), source, beat))
    if tail.last is None or _missing_s(container, tail) > END_TOLERANCE_S:  # a long subtitle lies further back
        container.seek(container.start_time or 0)
        tail.read(packets(container, (), source, beat))
    if tail.encrypted:  # what decodes by chance is noise
        raise CorruptMedia(f"a picture must not be encrypted, that of {source} is: decrypt the file first")
    _check_end(container, tail, source)
    last = max(tail.last or 0, tail.zero)
    end = last + (tail.last_duration or _step(video))
    _check_times(container, video, end, source)
    return end, last


def _check_times(container: InputContainer, video: VideoStream, end: int, source: str) -> None:
    """MP4 says how long the picture lasts apart from the sound: do the times of its frames reach that far?"""
    if "mp4" not in container.format.name or not video.duration:
        return
    promised = (video.start_time or 0) + video.duration
    if float((promised - end) * _tick(video)) > END_TOLERANCE_S:
        end_s, promised_s = (float(ticks * _tick(video)) for ticks in (end, promised))
        raise CorruptMedia(
            f"a picture must last as long as its track says; the times of the frames of {source} end at {end_s:.3f} s "
            f"of {promised_s:.3f} s: fetch it again, or convert it"
        )


def _check_end(container: InputContainer, tail: _Tail, source: str) -> None:
    """Compare where the packets end with where the header says."""
    if _missing_s(container, tail) > END_TOLERANCE_S or tail.damaged:
        promised_s = _promised_s(container)
        raise TruncatedMedia(
            f"a file must last as long as its header says; {source} ends at {tail.end_s:.3f} s of {promised_s:.3f} s"
            f"{', within a packet' if tail.damaged else ''}: fetch it again"
        )


def _promised_s(container: InputContainer) -> float:
    """Where the header says that the file ends, in the container's own seconds."""
    return ((container.start_time or 0) + (container.duration or 0)) / av.time_base


def _missing_s(container: InputContainer, tail: _Tail) -> float:
    """How much earlier the packets end; 0 where the header does not know.

    Some writers of Matroska count the duration from time zero, not from where the file starts: an end there is one.
    """
    if not any(name in container.format.name for name in KNOWS_END):
        return 0.0
    from_zero_s = (container.duration or 0) / av.time_base
    if "matroska" in container.format.name and abs(tail.end_s - from_zero_s) <= END_TOLERANCE_S:
        return 0.0
    return _promised_s(container) - tail.end_s


def _tick(video: VideoStream) -> Fraction:
    return video.time_base or Fraction(1, av.time_base)


def _step(video: VideoStream) -> int:
    """A frame's duration in ticks when its packet does not say; 0 if nobody knows."""
    return round(1 / (video.average_rate * _tick(video))) if video.average_rate else 0
