"""The bad and the odd: what each file is, how it is made, and what must become of it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avs_core.errors import (
    CorruptMedia,
    DecodeTimeout,
    MediaDenied,
    MediaError,
    MediaTooLarge,
    NoVideoStream,
    TruncatedMedia,
    UnreadableMedia,
)
from tests.media import surgery
from tests.media.clips import AAC, CHIRP, Recipe, ffmpeg
from tests.media.recipes import BASE, INTERLACED, MP3, MPEG4, MPG, OGV, OPUS, VP9, WMV, XVID
from tests.media.surgery import Surgery

Make = Callable[[Path, Path], None]
"""Makes a case's file: (where good files are kept, the path to write)."""


@dataclass(frozen=True)
class Case:
    """A file and what must become of it: the flags of a clip, or the class of its dead letter.

    `shows` are the bar codes of the frames that a clip must hold; None where the picture is too small to read them, or
    damage that no decoder notices has spoilt them (VP9 has no checksums).
    """

    name: str
    make: Make
    expected: tuple[str, ...] | type[MediaError]
    shows: tuple[int, ...] | None = (23, 48, 73)


FASTSTART = BASE.but("faststart.mp4", args=("-movflags", "faststart"))
FRAGMENTS = BASE.but("fragments_av.mp4", args=("-movflags", "frag_keyframe"))
MKV, TS, SILENT = BASE.but("plain.mkv"), BASE.but("plain.ts"), BASE.but("silent.mp4", sound="")
AVI, WEBM = BASE.but("mpeg4.avi", video=MPEG4, sound_args=MP3), BASE.but("vp9.webm", video=VP9, sound_args=OPUS)
MJPEG = BASE.but("mjpeg.avi", video=("-c:v", "mjpeg"), frames=25, sound="", args=("-pix_fmt", "yuvj420p"))


RAW = BASE.but("raw.avi", video=("-c:v", "rawvideo"), frames=2, sound="")


def holds(data: bytes) -> Make:
    """These bytes."""
    return lambda videos, path: _write(path, data)


def good(recipe: Recipe, *changes: Surgery) -> Make:
    """A good file, after these changes."""
    return lambda videos, path: _write(path, surgery.all_of(*changes)(recipe.make(videos).read_bytes()))


def odd(**changes: object) -> Make:
    """The plain recipe with changes, in the container of the case's name."""
    return lambda videos, path: _made(BASE.but(path.name, **changes), path)


def by_ffmpeg(*arguments: str, source: Recipe = BASE) -> Make:
    """ffmpeg's answer to these arguments; {in} is a good file."""
    return lambda videos, path: _ffmpeg(arguments, source.make(videos), path)


def joined(*parts: Recipe) -> Make:
    """The bytes of good files, one behind the other."""
    return lambda videos, path: _write(path, b"".join(part.make(videos).read_bytes() for part in parts))


def _one_after_the_other(*parts: Recipe) -> Make:
    """The packets of good files, one file behind the other, with rising timestamps."""

    def make(videos: Path, path: Path) -> None:
        listing = path.with_suffix(".list")
        listing.write_text("".join(f"file '{part.make(videos)}'\n" for part in parts))
        ffmpeg("-f", "concat", "-safe", "0", "-i", str(listing), "-c", "copy", str(path))

    return make


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _made(recipe: Recipe, path: Path) -> None:
    recipe.make(path.parent)


def _ffmpeg(arguments: tuple[str, ...], source: Path, path: Path) -> None:
    ffmpeg(*(str(source) if one == "{in}" else one for one in arguments), str(path))


def _link(target: str) -> Make:
    return lambda videos, path: path.symlink_to(BASE.make(videos) if target == "good" else path.parent / target)


COPY = ("-i", "{in}", "-map", "0", "-c", "copy")
NOISE = np.random.default_rng(1).bytes(50_000)
PICTURE = ("-f", "lavfi", "-i", "testsrc=s=64x48", "-frames:v", "1")
COVER = (*PICTURE[:4], "-i", "{in}", "-map", "0:v", "-map", "1:a", "-c:v", "mjpeg", "-frames:v", "1")
SCALED = BASE.but("other_size.ts", size=(144, 192))
LATER = BASE.but("later.ts", args=("-output_ts_offset", "1000"))

NOT_VIDEOS = [
    Case("empty.mp4", holds(b""), UnreadableMedia),
    Case("one_byte.mp4", holds(b"\0"), UnreadableMedia),
    Case("noise.mp4", holds(NOISE), UnreadableMedia),
    Case("zeros.mp4", holds(bytes(50_000)), UnreadableMedia),
    Case("text.mp4", holds(b"Not a video at all.\n" * 500), UnreadableMedia),
    Case("page.mp4", holds(b"<!DOCTYPE html><html><body>404</body></html>" * 20), UnreadableMedia),
    Case("playlist.mp4", holds(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"), UnreadableMedia),
    Case("concat.mp4", holds(b"ffconcat version 1.0\nfile /etc/hostname\n"), UnreadableMedia),
    Case("archive.mp4", holds(b"PK\3\4" + NOISE), UnreadableMedia),
    Case("picture.mp4", by_ffmpeg(*PICTURE, "-f", "image2", "-c:v", "png"), UnreadableMedia),
    Case("photo.mkv", by_ffmpeg(*PICTURE, "-f", "image2", "-c:v", "mjpeg"), UnreadableMedia),
    Case("sound_only.mp4", by_ffmpeg("-i", "{in}", "-vn", "-c", "copy"), NoVideoStream),
    Case("song.mp4", by_ffmpeg("-i", "{in}", "-vn", "-c:a", "libmp3lame", "-f", "mp3"), NoVideoStream),
    Case("wave.mp4", by_ffmpeg("-i", "{in}", "-vn", "-c:a", "pcm_s16le", "-f", "wav"), NoVideoStream),
]

CUT = [
    Case("header.mp4", good(BASE, lambda data: data[:40]), UnreadableMedia),
    Case("no_moov.mp4", good(BASE, surgery.before(b"moov")), UnreadableMedia),
    Case("cut_half.mp4", good(BASE, surgery.cut(0.5)), UnreadableMedia),
    Case("cut_head.mp4", good(BASE, surgery.headless(0.2)), UnreadableMedia),
    Case("cut_fast.mp4", good(FASTSTART, surgery.cut(0.6)), TruncatedMedia),
    Case("cut_fast_last_byte.mp4", good(FASTSTART, lambda data: data[:-1]), TruncatedMedia),
    Case("cut_fast_middle.mp4", good(FASTSTART, surgery.without(0.4, 0.6)), TruncatedMedia),
    Case("cut_fast_head.mp4", good(FASTSTART, surgery.headless(0.01)), UnreadableMedia),
    Case("cut_fragments.mp4", good(FRAGMENTS, surgery.cut(0.6)), TruncatedMedia),
    Case("cut.mkv", good(MKV, surgery.cut(0.6)), TruncatedMedia),
    Case("cut_head.mkv", good(MKV, surgery.headless(0.2)), UnreadableMedia),
    Case("cut_middle.mkv", good(MKV, surgery.without(0.4, 0.6)), TruncatedMedia),
    Case("cut.webm", good(WEBM, surgery.cut(0.6)), TruncatedMedia),
    Case("cut.avi", good(AVI, surgery.cut(0.6)), TruncatedMedia),
    Case("cut.wmv", good(WMV, surgery.cut(0.6)), TruncatedMedia),
    Case("cut.ogv", good(OGV, surgery.cut(0.6)), TruncatedMedia),
    Case("cut.mpg", good(MPG, surgery.cut(0.6)), TruncatedMedia),
    Case("cut.ts", good(TS, surgery.cut(0.6001)), TruncatedMedia),
    Case("cut_at_a_packet.ts", good(TS, surgery.packets_lost(0.6, 1)), TruncatedMedia),
    Case("cut_head.ts", good(TS, surgery.packets_lost(0, 0.3)), (), (53, 74)),
    Case("cut_middle.ts", good(TS, surgery.packets_lost(0.4, 0.6)), CorruptMedia),
]

DAMAGED = [
    Case("tables.mp4", good(BASE, surgery.scrambled(b"stbl")), UnreadableMedia),
    Case("sample_sizes.mp4", good(BASE, surgery.scrambled(b"stsz", 200)), CorruptMedia),
    Case("offsets.mp4", good(BASE, surgery.field(b"stco", 8, 0)), ("damaged",), (53, 74)),
    Case("zeroed.mp4", good(BASE, surgery.zeroed(b"mdat")), CorruptMedia),
    Case("payload.mp4", good(BASE, surgery.flipped(0.1, 0.8, 30, 16)), CorruptMedia),
    Case("payload.mkv", good(MKV, surgery.flipped(0.1, 0.8, 30, 16)), CorruptMedia),
    Case("payload.ts", good(TS, surgery.flipped(0.1, 0.8, 30, 16)), CorruptMedia),
    Case("payload.webm", good(WEBM, surgery.flipped(0.1, 0.8, 30, 16)), ("audio_padded",), None),
    Case("payload.avi", good(AVI, surgery.flipped(0.1, 0.8, 30, 16)), CorruptMedia),
    Case("head.mkv", good(MKV, surgery.flipped(0, 0.01, 40)), UnreadableMedia),
    Case("head.mp4", good(FASTSTART, surgery.flipped(0, 0.01, 40)), UnreadableMedia),
    Case("unknown_codec.mp4", good(BASE, surgery.renamed(b"avc1", b"zzz1")), UnreadableMedia),
    Case(
        "encrypted.mp4",
        by_ffmpeg(
            *COPY, "-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "0" * 32, "-encryption_kid", "1" * 32
        ),
        CorruptMedia,
    ),
    Case("no_frames.mp4", good(SILENT, surgery.field(b"stsz", 8, 0)), CorruptMedia),
    Case("no_times.mp4", good(BASE, surgery.field(b"stts", 8, 0)), CorruptMedia),
]

BOMBS = [
    Case(
        "giant.avi",
        good(MJPEG, surgery.field(b"strf", 8, 30_000, "<I"), surgery.field(b"strf", 12, 30_000, "<I")),
        ("no_audio",),
        (23,),
    ),
    Case(
        "giant_raw.avi",
        good(RAW, surgery.field(b"strf", 8, 16_000, "<I"), surgery.field(b"strf", 12, 16_000, "<I")),
        MediaTooLarge,
    ),
    Case(
        "giant_inside.avi",
        good(MJPEG, surgery.renamed(b"\xff\xc0\0\x11\x08\0\x78\0\xa0", b"\xff\xc0\0\x11\x08" + 4 * b"\xff")),
        CorruptMedia,
    ),
    Case(
        "giant_in_header.mp4",
        good(BASE, surgery.field(b"avc1", 24, 65_000, ">H"), surgery.field(b"avc1", 26, 65_000, ">H")),
        (),
    ),
    Case("century.mp4", good(BASE, surgery.field(b"mvhd", 16, 2**32 - 1)), ()),
    Case("century_track.mp4", good(BASE, surgery.field(b"mdhd", 16, 2**32 - 1)), ()),
    Case(
        "far_frame.mp4",
        good(SILENT, surgery.field(b"mdhd", 12, 100), surgery.field(b"stts", 12, 2**31 - 1)),
        MediaTooLarge,
    ),
    Case("century.mkv", good(MKV, surgery.field(b"\x44\x89\x88", 0, 1e15, ">d")), TruncatedMedia),  # type: ignore[arg-type]
    Case("many_frames.mp4", good(BASE, surgery.field(b"stsz", 8, 2**31 - 1)), UnreadableMedia),
    Case("many_times.mp4", good(BASE, surgery.field(b"stts", 8, 2**31 - 1)), ()),
    Case("many_chunks.mp4", good(BASE, surgery.field(b"stco", 4, 2**32 - 1)), ()),
    Case("giant_box.mp4", good(FASTSTART, surgery.field(b"moov", -8, 2**32 - 1)), ()),
    Case("fast_frames.mp4", good(SILENT, surgery.field(b"mdhd", 12, 2**31 - 1)), ("no_audio",), (74,)),
]

ODD_PICTURES = [
    Case("one_frame.mp4", odd(frames=1, sound=""), ("no_audio",), (0,)),
    Case("one_pixel.mkv", odd(size=(1, 1), video=("-c:v", "ffv1", "-pix_fmt", "bgr0")), (), None),
    Case("two_pixels.mp4", odd(size=(2, 2)), (), None),
    Case("odd_size.mkv", odd(size=(91, 143), video=("-c:v", "libx264", "-pix_fmt", "yuv444p")), ()),
    Case("very_wide.mp4", odd(size=(2, 2000), frames=25), (), (23,)),
    Case("very_tall.mp4", odd(size=(2000, 2), frames=25), (), None),
    Case(
        "uneven.mkv",
        odd(args=("-vf", "setpts='(N*N/75*0.6+N*0.4)/25/TB'", "-fps_mode", "passthrough")),
        (),
        (35, 57, 74),
    ),
    Case("edit_list.mp4", by_ffmpeg("-ss", "0.7", *COPY), (), (41, 66)),
    Case("turned.mp4", by_ffmpeg("-display_rotation", "90", *COPY), (), None),
    Case("ten_bit.mp4", odd(video=("-c:v", "libx264", "-pix_fmt", "yuv420p10le")), ()),
    Case("grey.mp4", odd(video=("-c:v", "libx264", "-pix_fmt", "gray")), ()),
    Case("alpha.webm", odd(video=(*VP9, "-pix_fmt", "yuva420p"), sound_args=OPUS), ()),
    Case("alpha.mov", odd(video=("-c:v", "qtrle", "-pix_fmt", "argb")), ()),
    Case("animated.gif", odd(video=("-pix_fmt", "rgb8"), sound=""), ("no_audio",)),
    Case("interlaced.ts", odd(video=INTERLACED), ()),
    Case("packed.avi", odd(video=XVID, sound_args=MP3), ("audio_padded",), (23, 48, 72)),
    Case("no_pts.m2v", odd(video=("-c:v", "mpeg2video", "-f", "mpeg2video"), sound=""), ("no_audio",)),
    Case("before_zero.mp4", odd(args=("-output_ts_offset", "-1.5")), (), (61,)),
    Case("hours_late.mkv", odd(args=("-output_ts_offset", "7200")), ()),
    Case("cover_only.mp3", by_ffmpeg(*COVER, "-c:a", "libmp3lame", "-disposition:v", "attached_pic"), NoVideoStream),
    Case(
        "two_videos.mkv",
        by_ffmpeg("-i", "{in}", "-map", "0:v", "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c", "copy"),
        (),
    ),
    Case("two_sizes.ts", _one_after_the_other(TS, SCALED), ("resolution_change",), (23, 48, 73, 22, 47, 72)),
    Case("leap.ts", joined(TS, LATER), CorruptMedia),
    Case("same_clock_twice.ts", joined(TS, TS), CorruptMedia),
    Case("twice.mp4", joined(BASE, BASE), ()),
]

ODD_SOUNDS = [
    Case("silent.mp4", odd(sound=""), ("no_audio",)),
    Case("telephone.mkv", odd(sound=CHIRP.format(d=3, r=8000), sound_args=("-c:a", "pcm_s16le")), ()),
    Case("studio.mkv", odd(sound=CHIRP.format(d=3, r=96000), sound_args=("-c:a", "flac")), ()),
    Case("surround.mp4", odd(sound_args=(*AAC, "-ac", "6")), ()),
    Case("short_sound.mp4", odd(sound=CHIRP.format(d=1.5, r=44100)), ("audio_padded",)),
    Case("long_sound.mp4", odd(sound=CHIRP.format(d=5, r=44100)), ()),
    Case("late_sound.mkv", odd(before_sound=("-itsoffset", "1.2")), ("audio_padded",)),
    Case("sound_codec.mp4", good(BASE, surgery.renamed(b"mp4a", b"zzza")), ()),
]

ODD_NAMES = [
    Case("an mkv.mp4", good(MKV), ()),
    Case("no extension", good(BASE), ()),
    Case("video.txt", good(BASE), ()),
    Case("new\nline.mp4", good(BASE), ()),
    Case('quote\'s "and" %s $(id) `id`.mp4', good(BASE), ()),
    Case("<img src=x onerror=alert(1)>.mp4", good(BASE), ()),
    Case("Gänse 鹅 🦆.mp4", good(BASE), ()),
    Case("..%2f..%2fup.mp4", good(BASE), ()),
    Case("-i.mp4", good(BASE), ()),
    Case("concat:a|b.mp4", good(BASE), ()),
    Case("linked.mp4", _link("good"), ()),
    Case("dangling.mp4", _link("nowhere.mp4"), MediaDenied),
    Case("loop.mp4", _link("loop.mp4"), MediaDenied),
    Case("folder.mp4", lambda videos, path: path.mkdir(), MediaDenied),
    Case("pipe.mp4", lambda videos, path: os.mkfifo(path), DecodeTimeout),
    Case("metadata.mp4", by_ffmpeg(*COPY, "-metadata", "comment=" + "<b>&\"'" * 20_000), ()),
    Case(
        "latin1.mp4",
        good(
            BASE.but("titled.mp4", args=("-metadata", "title=GaGaGa")), surgery.renamed(b"GaGaGa", b"G\xe4\xff\xfeGa")
        ),
        (),
    ),
    Case(
        "latin1.mkv",
        good(
            BASE.but("titled.mkv", args=("-metadata", "title=GaGaGa")), surgery.renamed(b"GaGaGa", b"G\xe4\xff\xfeGa")
        ),
        (),
    ),
]

CASES = [*NOT_VIDEOS, *CUT, *DAMAGED, *BOMBS, *ODD_PICTURES, *ODD_SOUNDS, *ODD_NAMES]
