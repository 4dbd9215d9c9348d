"""Video files in memory, and what a reader sees and hears of them: compression is on everything."""

import io
import wave
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np
from jaxtyping import Float32, Int16, UInt8
from PIL import Image

from avs_core.clip import AUDIO_RATE


def encode(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    waveform: Float32[np.ndarray, " n"],
    fps: int,
    size: tuple[int, int],
    crf: int,
) -> bytes:
    """An MP4 of H.264 and AAC, the same bytes for the same input and encoder. `size` is (height, width), even."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        # Without cpu-independent x264 gives other bytes at every other call, even in one process.
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "x264-params": "cpu-independent=1"}
        video = container.add_stream("libx264", rate=fps, options=options)
        video.height, video.width, video.pix_fmt = *size, "yuv420p"
        audio = container.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = AUDIO_RATE, 0, Fraction(1, AUDIO_RATE)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return buffer.getvalue()


def decode_frames(mp4: bytes, wanted: Iterable[int], size: int) -> list[UInt8[np.ndarray, "S S 3"]]:
    """The frames of these indices, squeezed to a square of `size` pixels."""
    indices = set(wanted)
    with av.open(io.BytesIO(mp4), "r") as container:
        frames = [frame for index, frame in enumerate(container.decode(video=0)) if index in indices]
    pictures = [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in frames]
    return [np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)) for picture in pictures]


def decode_sound(mp4: bytes, samples: int) -> Int16[np.ndarray, " n"]:
    """The first `samples` samples at 16 kHz, filled up with zeros."""
    with av.open(io.BytesIO(mp4), "r") as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])[:samples]
    levels = np.rint(np.clip(heard, -1, 1) * 32767).astype(np.int16)
    return np.pad(levels, (0, samples - len(levels)))


def png(picture: UInt8[np.ndarray, "H W *channels"]) -> bytes:
    """A picture (H, W, 3) or a mask (H, W) of 0 and 255 as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def wav(samples: Int16[np.ndarray, " n"]) -> bytes:
    """16-bit PCM at 16 kHz, mono."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(AUDIO_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()
