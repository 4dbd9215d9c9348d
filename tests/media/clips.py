"""Test videos made by ffmpeg, each frame numbered by a bar code, and ffmpeg's own answer to which is shown when."""

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
BITS = 12
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "30")
AAC = ("-c:a", "aac", "-b:a", "96k")
CHIRP = "aevalsrc='0.4*sin(2*PI*(200*t+150*t*t))':d={d}:s={r}"


def ffmpeg(*arguments: str, data: bytes | None = None) -> bytes:
    """Run ffmpeg with one thread and return what it writes to stdout. Raises with its words when it fails."""
    command = [FFMPEG, "-v", "error", "-nostdin", "-y", *arguments]
    if data is not None:
        command.remove("-nostdin")
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout


def bar_code(number: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: the number as upright bars above, something that moves below."""
    picture = np.empty((height, width, 3), np.uint8)
    bits = (number >> np.arange(BITS)[::-1]) & 1
    picture[: height // 2] = (16 + 220 * bits[np.arange(width) * BITS // width])[None, :, None]
    y, x = np.mgrid[: height - height // 2, :width]
    picture[height // 2 :, :, 0] = x * 255 // width
    picture[height // 2 :, :, 1] = (x + 4 * number) % 64 * 4
    picture[height // 2 :, :, 2] = (y + number) % 32 * 8
    return picture


def read_bar_code(picture: np.ndarray) -> int:
    """The number in a picture of any size, (h, w) or (h, w, 3)."""
    grey = picture.mean(axis=2) if picture.ndim == 3 else picture
    height, width = grey.shape
    band = grey[height // 8 : height * 3 // 8]
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    reach = max(width // BITS // 5, 1)
    bits = [band[:, c - reach : c + reach + 1].mean() > 126 for c in centres]
    return int(sum(int(bit) << (BITS - 1 - i) for i, bit in enumerate(bits)))


@dataclass(frozen=True)
class Recipe:
    """How a test video is made; `args` come after the inputs, `sound` is a lavfi source or empty."""

    name: str
    frames: int = 75
    fps: str = "25"
    size: tuple[int, int] = (120, 160)
    video: tuple[str, ...] = H264
    sound: str = CHIRP.format(d=3, r=44100)
    sound_args: tuple[str, ...] = AAC
    before_sound: tuple[str, ...] = ()
    args: tuple[str, ...] = ()

    def make(self, folder: Path) -> Path:
        """The file, made if it is not there yet."""
        path = folder / self.name
        if path.exists():
            return path
        height, width = self.size
        pictures = b"".join(bar_code(i, height, width).tobytes() for i in range(self.frames))
        sound = (*self.before_sound, "-f", "lavfi", "-i", self.sound) if self.sound else ()
        ffmpeg(
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", self.fps, "-i", "pipe:0"),
            *sound,
            *("-threads", "1", *self.video, *(("-pix_fmt", "yuv420p") if "-pix_fmt" not in self.video else ())),
            *((*self.sound_args,) if self.sound else ()),
            *self.args,
            str(path),
            data=pictures,
        )
        return path

    def but(self, name: str, **changes: object) -> "Recipe":
        """This recipe under another name with changes."""
        return replace(self, name=name, **changes)  # type: ignore[arg-type]


def shown_by_ffmpeg(path: Path, seconds: int, size: tuple[int, int], rate: int = 16) -> list[list[int]]:
    """What ffmpeg shows at every 1/16 s: bar codes, a list of 16 a second. Past the end: the last frame.

    `fps=16:round=up` gives at time n/16 the last frame with pts <= n/16.
    """
    height, width = size
    filters = f"setpts=PTS-STARTPTS,fps=fps={rate}:round=up"
    raw = ffmpeg(
        *("-noautorotate", "-threads", "1", "-i", str(path), "-map", "0:V:0", "-vf", filters),
        *("-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", "-"),
    )
    pictures = np.frombuffer(raw, np.uint8).reshape(-1, height, width)
    codes = [read_bar_code(picture) for picture in pictures]
    last = (len(codes) - 1) / rate
    pts, numbers = frames_by_ffmpeg(path, size)
    for at in range(len(codes), seconds * rate):
        codes.append(max((p, n) for p, n in zip(pts, numbers, strict=True) if p <= max(at / rate, last))[1])
    return [codes[s * rate : (s + 1) * rate] for s in range(seconds)]


def frames_by_ffmpeg(path: Path, size: tuple[int, int]) -> tuple[list[float], list[int]]:
    """(seconds after the first frame, bar code) of every frame that ffmpeg shows."""
    height, width = size
    listed = frame_times(path)
    raw = ffmpeg(
        *("-noautorotate", "-threads", "1", "-i", str(path), "-map", "0:V:0"),
        *("-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", "-"),
    )
    codes = [read_bar_code(picture) for picture in np.frombuffer(raw, np.uint8).reshape(-1, height, width)]
    return [time - listed[0] for time in listed], codes


def frame_times(path: Path, stream: str = "V") -> list[float]:
    """Presentation times of a stream's frames in the container's own seconds."""
    filters = ("-vf", "showinfo") if stream == "V" else ("-af", "ashowinfo")
    command = [FFMPEG, "-hide_banner", "-nostdin", "-copyts", "-i", str(path), "-map", f"0:{stream}:0", *filters]
    done = subprocess.run([*command, "-fps_mode", "passthrough", "-f", "null", "-"], capture_output=True, check=True)
    return [float(time) for time in re.findall(r"n: *\d+ pts: *-?\d+ pts_time:([-+.\de]+)", done.stderr.decode())]


def sound_by_ffmpeg(path: Path, rate: int = 16_000) -> np.ndarray:
    """ffmpeg's `-ac 1 -ar 16000` of the whole file, moved to where the first video frame is time zero.

    As a 16-bit file would hold it: only there does ffmpeg keep the mix of several channels from clipping.
    """
    raw = ffmpeg("-i", str(path), "-map", "0:a:0", "-ac", "1", "-ar", str(rate), "-f", "s16le", "-")
    lead = round((frame_times(path, "a")[0] - frame_times(path)[0]) * rate)
    sound = np.frombuffer(raw, np.int16).astype(np.float32) / 32768
    return np.concatenate([np.zeros(max(lead, 0), np.float32), sound[max(-lead, 0) :]])


def snr_db(reference: np.ndarray, signal: np.ndarray) -> float:
    """Signal-to-noise ratio of `signal` against `reference`, both cut to the shorter."""
    n = min(len(reference), len(signal))
    noise = float(np.sum((reference[:n].astype(np.float64) - signal[:n]) ** 2))
    return 10 * np.log10(float(np.sum(reference[:n].astype(np.float64) ** 2)) / max(noise, 1e-30))


def codes_of(frames: np.ndarray, quarter_turns: int = 0) -> list[list[int]]:
    """Bar codes of decoded frames (S, R, h, w, 3), turned back counter-clockwise first."""
    return [[read_bar_code(np.rot90(picture, quarter_turns)) for picture in second] for second in frames]
