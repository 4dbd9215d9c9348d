"""A small archive and the clips behind it: masks that move, a silent second, a file name that bites."""

import numpy as np
import pyarrow as pa

from avs_core import masks
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.read import dead_letters
from avs_core.archive.schema import FrameRow, RunRecord, frame_table, instance_table
from avs_core.clip import AUDIO_RATE, Clip, Instance, Unit, VideoRef
from avs_core.report.page import FrameShot, ReportFacts, VideoSection

HEIGHT, WIDTH, SIZE = 90, 160, 32
RECORD = RunRecord(model="sample", weights_sha256="ab" * 32)
BITING = "s3://videos/<script>alert('1')<b>.mp4"
PLAIN = "s3://videos/plain.mp4"


def disc(second: int) -> np.ndarray:
    """A mask (HEIGHT, WIDTH): a disc that moves to the right."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (y - 45) ** 2 + (x - 30 - 12 * second) ** 2 < 20**2


def instance(mask: np.ndarray, object_id: int = 0, category: str | None = None, score: float = 0.75) -> Instance:
    """The instance that covers a mask."""
    rle = masks.encode(mask)
    return Instance(
        object_id=object_id,
        counts=rle["counts"],
        height=mask.shape[0],
        width=mask.shape[1],
        area=masks.area(rle),
        bbox=masks.bbox(rle),
        score=score,
        category=category,
    )


def found(second: int) -> tuple[Instance, ...]:
    """What sounds in a second: nothing in every third, else the disc."""
    return (instance(disc(second)),) if second % 3 else ()


def clip(seconds: int, rate: int = 1, flags: tuple[str, ...] = ()) -> Clip:
    """Pictures of noise, a tone that grows louder, frames at 0.92 s of their part of the second."""
    slots = seconds * rate
    random = np.random.default_rng(slots)
    times = (np.arange(slots) * 1_000_000 + 920_000) // rate
    tone = np.sin(np.arange(seconds * AUDIO_RATE) * 0.3) * np.linspace(0, 1, seconds * AUDIO_RATE)
    return Clip(
        frames=random.integers(0, 256, (seconds, rate, SIZE, SIZE, 3), dtype=np.uint8),
        frame_index=np.arange(slots, dtype=np.int64).reshape(seconds, rate),
        frame_time_us=times.astype(np.int64).reshape(seconds, rate),
        waveform=tone.astype(np.float32),
        audio_start_s=0.0,
        height=HEIGHT,
        width=WIDTH,
        shown=slots,
        flags=flags,
    )


def commit(writer: ArchiveWriter, uri: str, of: Clip) -> None:
    """Commit a clip with what `found` says of each slot."""
    video = VideoRef(uri, 1000, "etag")
    rate = of.frames.shape[1]
    times = of.frame_time_us.reshape(-1).tolist()
    rows = [
        FrameRow(slot // rate, slot % rate, slot, time, HEIGHT, WIDTH, True, of.flags, found(slot))
        for slot, time in enumerate(times)
    ]
    unit = Unit(video, 0, of.frames.shape[0])
    writer.commit_unit(unit, instance_table(video, rows), frame_table(video, rows))


def opened(uri: str) -> ArchiveWriter:
    """A writer whose run is there."""
    writer = ArchiveWriter(uri, RECORD)
    writer.open_run()
    return writer


def archive(uri: str, *, seconds: int = 7, rate: int = 1) -> tuple[str, pa.Table]:
    """Make an archive of two videos and a dead letter; its run key and its dead letters."""
    writer = opened(uri)
    for video in (BITING, PLAIN):
        commit(writer, video, clip(seconds, rate))
    dead = Unit(VideoRef("s3://videos/<i>cut</i>.mp4", 5, "etag"), 0, 5)
    writer.dead_letter(dead, "truncated", "the file ends <u>before</u> its index & so on", "decode")
    return writer.run_key, dead_letters(uri, writer.run_key)


def facts(**changed: object) -> ReportFacts:
    """The facts of a run that found little."""
    known = {
        "title": "Sample <run>",
        "archive": "s3://archive",
        "run_key": "r0123456789abcdef",
        "model": "sample",
        "weights_sha256": "ab" * 32,
        "videos": 3,
        "video_seconds": 14.0,
        "frames": 14,
        "instances": 8,
        "dead": 1,
        "seconds": 2.0,
        "pending": 3,
        "settings": {"threshold": None, "note": "<em>kept</em>"},
    }
    return ReportFacts(**{**known, **changed})  # type: ignore[arg-type]  # a test may change any of them


def shot(*instances: Instance, height: int = HEIGHT, width: int = WIDTH) -> FrameShot:
    """A frame of noise with instances."""
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return FrameShot(920_000, picture, height, width, instances)


def one_frame(uri: str, *instances: Instance) -> VideoSection:
    """A section of a single frame."""
    return VideoSection(uri, [shot(*instances)], (0.0,) * 20)
