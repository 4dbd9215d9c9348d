"""How much of a file in an object store a unit reads, by container: what lies before its place should not count.

`python -m benchmarks.late` makes a video of each container, puts it on a real S3 server of this machine, and counts
the bytes that pass while one unit of five seconds is decoded: the first one, and the last one.
"""

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import imageio_ffmpeg

from avs_core.clip import Unit, VideoRef
from avs_core.media.clips import decode_clip
from avs_core.media.config import DecodeConfig
from benchmarks.measure import Row

if TYPE_CHECKING:
    from tests.chaos.faulty_s3 import Exchange

SECONDS = 120
LOOP_S, UNIT_S, MAX_PIXELS = 20, 5, 10**8
RATE = "4M"
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "50", "-c:a", "aac")
CONTAINERS = {
    "MP4": ("mp4", X264),
    "MP4, index first": ("fast.mp4", (*X264, "-movflags", "faststart")),
    "MP4 in fragments": ("fragments.mp4", (*X264, "-movflags", "frag_keyframe+empty_moov")),
    "Matroska": ("mkv", X264),
    "MPEG-TS": ("ts", X264),
    "AVI": ("avi", ("-c:v", "mpeg4", "-g", "50", "-c:a", "mp3")),
    "WMV": ("wmv", ("-c:v", "wmv2", "-g", "50", "-c:a", "wmav2")),
    "FLV": ("flv", X264),
}
"""Name → how the file ends, and how ffmpeg makes it."""


@dataclass
class Counted:
    """Bytes that a store has answered with."""

    bytes: int = 0

    def __call__(self, exchange: "Exchange") -> "Callable[[Exchange], None] | None":
        """The choice of a front: everything goes through."""
        return self._pass if exchange.verb == "GET" else None

    def _pass(self, exchange: "Exchange") -> None:
        answer = exchange.forward()
        self.bytes += len(answer.content)
        exchange.reply(answer)


def run(seconds: int = SECONDS, containers: tuple[str, ...] = tuple(CONTAINERS)) -> list[Row]:
    """Of each container: the size of the file, and how much of it its first and its last unit read."""
    rows = []
    with tempfile.TemporaryDirectory() as name, counting(Path(name)) as (put, counted):
        for container in containers:
            path = made(Path(name), container, seconds)
            size, uri = path.stat().st_size, put(path)
            rows.append(Row(f"{container}: the file", size / 1e6, "MB"))
            for what, start in (("first", 0), ("last", seconds - UNIT_S)):
                read = bytes_of(counted, uri, start)
                rows.append(Row(f"{container}: read by its {what} unit", read / 1e6, "MB"))
    return rows


def bytes_of(counted: Counted, uri: str, start_s: int) -> int:
    """The bytes that decoding a unit takes."""
    before = counted.bytes
    decode_clip(Unit(VideoRef(uri, 0, "benchmark"), start_s, start_s + UNIT_S), DecodeConfig(), MAX_PIXELS)
    return counted.bytes - before


def made(folder: Path, container: str, seconds: int) -> Path:
    """A video of so many seconds, of which each second has half a megabyte: some that are encoded, in a loop."""
    ending, arguments = CONTAINERS[container]
    loop, path = folder / f"loop.{ending}", folder / f"video.{ending}"
    picture = f"testsrc2=s=640x360:r=25:d={LOOP_S}"
    sources = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"sine=440:d={LOOP_S}", "-vf", "noise=alls=60:allf=t")
    size = ("-b:v", RATE, "-minrate", RATE, "-maxrate", RATE, "-bufsize", RATE)
    movflags = arguments[arguments.index("-movflags") :] if "-movflags" in arguments else ()
    laps = str(seconds // LOOP_S - 1)
    _ffmpeg(*sources, *arguments, *size, str(loop))
    _ffmpeg("-stream_loop", laps, "-i", str(loop), "-c", "copy", *movflags, str(path))
    return path


def _ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *arguments]
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def counting(folder: Path) -> Iterator[tuple[Callable[[Path], str], Counted]]:
    """A real S3 server behind a front that counts: what puts a file there and says its URI, and the count."""
    from tests.chaos import faulty_s3
    from tests.s3_server import Seaweed

    server, counted, before = Seaweed(folder), Counted(), dict(os.environ)
    server.start()
    try:
        bucket = server.server.with_bucket("late")

        def put(path: Path) -> str:
            bucket.put(path.name, path.read_bytes())
            return f"{bucket.uri}/{path.name}"

        with faulty_s3.in_front_of(bucket, counted) as front:
            os.environ.update(front.server.environment)
            yield put, counted
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()


if __name__ == "__main__":
    from benchmarks.__main__ import show

    parser = argparse.ArgumentParser(prog="python -m benchmarks.late")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="length of each file, a multiple of 20")
    show("late", run(parser.parse_args().seconds))
