"""Frames by ffmpeg's own decoders, decoding no more than the wanted frames need.

*Planned*: the packets of one group of pictures (GOP) are read before any of them is decoded. Their timestamps tell
which frames are shown at the wanted times; a GOP without one is skipped, another is decoded up to its last wanted
frame, and frames that nothing refers to are left out on the way. A leading picture (shown before the key frame it
follows in the file) also needs the GOP before. *Sequential*: every frame is decoded. It is slower and never wrong, so
it takes over when a plan does not work out, and counts what can't be decoded.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from jaxtyping import Int64, UInt8

from avs_core.media.picture import Painter, displayed_size, turn_of
from avs_core.media.sampling import choose_frames
from avs_core.media.source import AnyPacket, pass_on_memory

SKIPS_NONREF = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "wmv3"})
"""Codecs whose decoders can leave out frames that no other refers to; dav1d's choice is another, VP9 has none."""

MAX_GOP_BYTES = 256 << 20
"""A GOP larger than this is decoded as it comes instead of being kept."""


class PlanError(Exception):
    """The packets do not tell what the decoder shows: decode sequentially."""


@dataclass
class Pictures:
    """The frames that were picked, in the order of the targets.

    images   (n, h, w, 3) RGB at the model's size
    pts      (n,) in the stream's ticks
    seen     PTS of the packets read, without those that are never shown; times of frames where there are no PTS
    errors   packets or frames that could not be decoded after the first good one; `leading`: before it
    failed_last  the last packet was such a one
    sizes    every (height, width) as displayed that a picked frame had
    """

    images: UInt8[np.ndarray, "n h w 3"]
    pts: Int64[np.ndarray, " n"]
    seen: list[int] = field(default_factory=list)
    errors: int = 0
    leading: int = 0
    failed_last: bool = False
    sizes: set[tuple[int, int]] = field(default_factory=set)

    def put(self, at: int, frame: VideoFrame, pts: int, painter: Painter) -> None:
        """Picture `at` is this frame; a frame that fills several targets is scaled once."""
        repeated = at > 0 and self.pts[at - 1] == pts
        self.images[at] = self.images[at - 1] if repeated else painter(frame)
        self.pts[at] = pts
        if not repeated:
            self.sizes.add(displayed_size(frame, turn_of(frame)))

    def positions(self, zero: int, start: int, stop: int) -> tuple[Int64[np.ndarray, " n"], int]:
        """Which frame each picked one is, counted from the first shown at `start` or later, and how many are by `stop`.

        Of several at one time the last shows. None that comes before `zero` is counted.
        """
        shown = np.sort(np.array([pts for pts in self.seen if pts >= zero], dtype=np.int64))
        first, end = np.searchsorted(shown, [start, stop], side="left").tolist()
        return np.searchsorted(shown, self.pts, side="right").astype(np.int64) - 1 - first, end - first


def new_pictures(count: int, height: int, width: int) -> Pictures:
    """Room for `count` pictures."""
    return Pictures(np.zeros((count, height, width, 3), np.uint8), np.full(count, np.iinfo(np.int64).min))


def target_ticks(wanted_us: Int64[np.ndarray, " n"], tick: Fraction, zero: int) -> Int64[np.ndarray, " n"]:
    """Wanted times in the stream's ticks, rounded down: a frame shown later must not win."""
    return np.array([zero + math.floor(Fraction(us, 1_000_000) / tick) for us in wanted_us.tolist()], dtype=np.int64)


class FrameClock:
    """When each decoded frame is shown, in ticks.

    AVI stores no PTS, and ffmpeg's guesses may run backwards; its own answer there, and ours, is the DTS that the
    decoder attaches to a frame: the frames keep their order and their spacing.
    """

    def __init__(self, by_dts: bool, step: int) -> None:
        self.by_dts, self._step = by_dts, step
        self._last: int | None = None

    def __call__(self, frame: VideoFrame) -> int:
        """The frame's time; one without a timestamp follows the frame before."""
        stamp = frame.dts if self.by_dts else frame.pts
        if stamp is None:
            stamp = 0 if self._last is None else self._last + self._step
        self._last = stamp
        return stamp


def decode_planned(
    packets: Iterator[AnyPacket],
    context: VideoCodecContext,
    targets: Int64[np.ndarray, " n"],
    zero: int,
    painter: Painter,
    pictures: Pictures,
) -> None:
    """Fill `pictures` with the frame shown at each target. Raises PlanError."""
    done = 0
    gops = _gops(packets, pictures.seen)
    current = next(gops, [])
    while current and done < len(targets):
        following = next(gops, [])
        horizon = _pts(following[0]) if following else np.iinfo(np.int64).max
        upto = int(np.searchsorted(targets, horizon, side="left"))
        if upto > done:
            shown = _shown(current + [p for p in following if _pts(p) < horizon], zero)
            chosen = shown[choose_frames(shown, targets[done:upto])]
            frames = _decode_wanted(context, current, following, set(chosen.tolist()))
            for at, pts in enumerate(chosen.tolist(), start=done):
                pictures.put(at, frames[pts], pts, painter)
        done, current = upto, following
    if done < len(targets):
        raise PlanError("no key frame")
    deque(gops, maxlen=0)  # the packets to the unit's end are counted


def _gops(packets: Iterator[AnyPacket], seen: list[int]) -> Iterator[list[AnyPacket]]:
    """Packets from one key frame to the next; what precedes the first key frame belongs to it."""
    gop: list[AnyPacket] = []
    keyed, size = False, 0
    for packet in packets:
        if packet.pts is None or packet.is_corrupt:
            raise PlanError("a packet without a timestamp, or marked as corrupt")
        if packet.is_keyframe and keyed:
            yield gop
            gop, size = [], 0
        keyed = keyed or packet.is_keyframe
        size += packet.size
        if size > MAX_GOP_BYTES:
            raise PlanError("a group of pictures too large to keep")
        gop.append(packet)
        if not packet.is_discard:
            seen.append(packet.pts)
    if gop:
        yield gop


def _pts(packet: AnyPacket) -> int:
    """`_gops` lets no packet without a PTS pass."""
    if packet.pts is None:
        raise PlanError("a packet without a timestamp")
    return packet.pts


def _shown(packets: list[AnyPacket], zero: int) -> Int64[np.ndarray, " n"]:
    pts = sorted(_pts(packet) for packet in packets if not packet.is_discard and _pts(packet) >= zero)
    if not pts:
        raise PlanError("a group of pictures without a picture")
    return np.array(pts, dtype=np.int64)


def _decode_wanted(
    context: VideoCodecContext,
    current: list[AnyPacket],
    following: list[AnyPacket],
    wanted: set[int],
) -> dict[int, VideoFrame]:
    """The wanted frames of one GOP and of the next one's leading pictures, by PTS."""
    packets = current + following
    last = max(i for i, packet in enumerate(packets) if packet.pts in wanted)
    may_skip = context.name in SKIPS_NONREF
    frames: dict[int, VideoFrame] = {}
    try:
        for packet in packets[: last + 1]:
            context.skip_frame = "NONREF" if may_skip and packet.pts not in wanted else "DEFAULT"
            _keep(context.decode(packet), wanted, frames)
        _keep(context.decode(None), wanted, frames)
    except av.FFmpegError as error:
        pass_on_memory(error, context.width * context.height)
        raise PlanError("a packet that can't be decoded") from error
    context.flush_buffers()
    if wanted - frames.keys():
        raise PlanError("a frame that the decoder does not show")
    return frames


def _keep(decoded: list[VideoFrame], wanted: set[int], frames: dict[int, VideoFrame]) -> None:
    for frame in decoded:
        if frame.is_corrupt:
            raise PlanError("a damaged frame")
        if frame.pts is not None and frame.pts in wanted:
            frames[frame.pts] = frame


def decode_sequential(
    packets: Iterator[AnyPacket],
    context: VideoCodecContext,
    targets: Int64[np.ndarray, " n"],
    stop: int,
    clock: FrameClock,
    painter: Painter,
    pictures: Pictures,
) -> None:
    """Fill `pictures` by decoding every frame up to `stop`; counts those, and what can't be decoded."""
    done = 0
    before: tuple[VideoFrame, int] | None = None
    for frame, pts in _all_frames(packets, context, clock, pictures):
        while before and done < len(targets) and targets[done] < pts:
            pictures.put(done, before[0], before[1], painter)
            done += 1
        if done == len(targets) and pts >= stop:
            return
        before = frame, pts
    if before is None:
        pictures.errors += 1
        return
    for at in range(done, len(targets)):
        pictures.put(at, before[0], before[1], painter)


def _all_frames(
    packets: Iterator[AnyPacket], context: VideoCodecContext, clock: FrameClock, pictures: Pictures
) -> Iterator[tuple[VideoFrame, int]]:
    """Frames in the order of presentation, each with its PTS, to the end of the packets."""
    context.skip_frame = "DEFAULT"
    last: int | None = None

    for packet in _and_end(packets):
        if packet and packet.pts is not None and not packet.is_discard and not clock.by_dts:
            pictures.seen.append(packet.pts)
        try:
            decoded = context.decode(packet)
            broken = any(frame.is_corrupt for frame in decoded) or bool(packet and packet.is_corrupt)
        except av.FFmpegError as error:
            pass_on_memory(error, context.width * context.height)
            decoded, broken = [], True
        if broken:
            pass_on_memory(None, context.width * context.height)
        pictures.leading += broken and last is None
        pictures.errors += broken and last is not None
        pictures.failed_last = broken or (pictures.failed_last and packet is None)
        for frame in decoded:
            last = clock(frame)
            if clock.by_dts:
                pictures.seen.append(last)
            yield frame, last


def _and_end(packets: Iterator[AnyPacket]) -> Iterator[AnyPacket | None]:
    """The packets and None, which makes a decoder give what it holds back."""
    yield from packets
    yield None
