"""Decoding backends on the same files: CPU seconds, ratios, and how many frames are the right ones.

One frame a second at 224×224 from generated video whose frames carry their number as a bar code. Sound is left out.
CPU seconds of one process with one thread a file; the least of the rounds, taken alternately.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from avs_core.clip import Clip, Unit, VideoRef
from avs_core.media.clips import decode_clip
from avs_core.media.config import Backend, DecodeConfig
from avs_core.media.decord_backend import decord_is_exact
from avs_core.media.probe import probe
from benchmarks.measure import Row

SECONDS, FPS, BITS, ROUNDS = 12, 25, 12, 2
MAX_PIXELS = 10**8
X264 = ("-c:v", "libx264", "-preset", "superfast", "-bf", "3", "-b_strategy", "0", "-sc_threshold", "0")
"""Three B-frames in four and no scene cuts, as footage has them; the encoder would see nothing but cuts in noise."""

FILES: dict[str, tuple[str, tuple[int, int], tuple[str, ...]]] = {
    "H.264 360p": ("mp4", (360, 640), X264),
    "H.264 720p": ("mp4", (720, 1280), X264),
    "H.264 720p, GOP 50": ("mp4", (720, 1280), (*X264, "-g", "50")),
    "H.264 720p, open GOP 50": ("mp4", (720, 1280), (*X264, "-g", "50", "-x264-params", "open-gop=1")),
    "H.264 1080p": ("mp4", (1080, 1920), X264),
    "H.265 720p": ("mp4", (720, 1280), ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")),
    "VP9 720p": ("webm", (720, 1280), ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M")),
    "AV1 720p": ("mp4", (720, 1280), ("-c:v", "libsvtav1", "-preset", "12", "-crf", "20", "-svtav1-params", "lp=1")),
    "MPEG-4 720p": ("avi", (720, 1280), ("-c:v", "mpeg4", "-bf", "2", "-q:v", "5")),
}
"""Name → container, (height, width), encoder."""

QUIET = {"SVT_LOG": "1"}
"""SVT-AV1 does not obey ffmpeg's log level."""

BACKENDS: tuple[Backend, ...] = ("pyav-sequential", "pyav", "decord")


def run() -> list[Row]:
    """CPU seconds of each backend, ratios to decoding every frame, and exact frames."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            rows += measure(name, make(name, Path(folder)))
    return rows


def make(name: str, folder: Path) -> Path:
    """Small bar codes, enlarged by ffmpeg and covered with a little noise, so that there is something to code."""
    kind, (height, width), encoder = FILES[name]
    path = folder / f"{name.replace(' ', '_')}.{kind}"
    pictures = np.stack([bar_code(number) for number in range(SECONDS * FPS)])
    filters = f"scale={width}:{height}:flags=neighbor,noise=alls=3:allf=t"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "gray"]
    command += ["-s", f"{BITS * 8}x64", "-r", str(FPS), "-i", "pipe:0", "-vf", filters, "-pix_fmt", "yuv420p"]
    subprocess.run(
        [*command, "-threads", "1", *encoder, str(path)], input=pictures.tobytes(), check=True, env=os.environ | QUIET
    )
    return path


def bar_code(number: int) -> np.ndarray:
    """(64, 96) grey: the number as bars above, a moving ramp below."""
    bits = (number >> np.arange(BITS)[::-1]) & 1
    ramp = (np.arange(BITS * 8) * 3 + number * 5) % 200 + 28
    bars = np.repeat(48 + 160 * bits, 8)
    return np.concatenate([np.tile(bars, (32, 1)), np.tile(ramp, (32, 1))]).astype(np.uint8)


def number_of(picture: np.ndarray) -> int:
    """The number in a 224×224 picture."""
    cells = picture[28:84].mean(axis=(0, 2)).reshape(224)
    centres = ((np.arange(BITS) + 0.5) * 224 / BITS).astype(int)
    return int(sum(int(cells[c - 3 : c + 4].mean() > 128) << (BITS - 1 - i) for i, c in enumerate(centres)))


def measure(name: str, path: Path) -> list[Row]:
    """The rows of one file."""
    info = probe(str(path))
    unit = Unit(VideoRef(str(path), path.stat().st_size, "benchmark"), 0, info.seconds)
    backends = [backend for backend in BACKENDS if backend != "decord" or decord_is_exact(info)]
    acts = {b: partial(decode_clip, unit, DecodeConfig(backend=b), MAX_PIXELS) for b in backends}
    spent, clips = least_cpu_s(acts)
    rows = []
    for backend in backends:
        wanted = [int(second * FPS + 15 / 16 * FPS) for second in range(info.seconds)]
        exact = sum(number_of(frame) == want for frame, want in zip(clips[backend].frames[:, 0], wanted, strict=True))
        rows.append(Row(f"{name}: {backend}", spent[backend], "CPU s"))
        rows.append(Row(f"{name}: {backend}, exact of {len(wanted)}", exact, "frames"))
        if backend != "pyav":
            rows.append(Row(f"{name}: {backend} / pyav", spent[backend] / spent["pyav"], "×"))
    return rows


def least_cpu_s(acts: Mapping[Backend, Callable[[], Clip]]) -> tuple[dict[Backend, float], dict[Backend, Clip]]:
    """Least CPU seconds of each act, all threads counted, and what it returned."""
    spent: dict[Backend, float] = {}
    clips: dict[Backend, Clip] = {}
    for _ in range(ROUNDS):
        for name, act in acts.items():
            started = time.process_time()
            clips[name] = act()
            spent[name] = min(spent.get(name, float("inf")), time.process_time() - started)
    return spent, clips
