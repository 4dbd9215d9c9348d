"""The whole job on Ray against the sum of its parts: what overlapping decoding and segmenting wins, and what Ray costs.

The parts are the same stages called one after the other in this process. One decoder and one segmenter, as the
smallest machine has them.
"""

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.verify import archive_digest
from avs_core.clip import VideoRef
from avs_core.models.bundle import load_bundle
from avs_core.pipelines import wire
from avs_core.pipelines.cluster import connected
from avs_core.pipelines.flows import reach_of
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.model_stage import SegmentUnit
from avs_core.pipelines.progress import Progress
from avs_core.pipelines.segment import frame_size, run_record, segment
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import CommitUnit, DecodeUnit, ProbeVideo, new_row, row_to_probe
from avs_core.pipelines.stages import Row as StageRow
from avs_core.pipelines.units import unprobed
from avs_core.recipes import DEMO_CLIPS
from avs_core.tracking import NullRun
from benchmarks.measure import Row

COPIES = 5
"""Of each demo clip: 40 videos, 240 s."""


def run() -> list[Row]:
    """Seconds of the parts and of the whole, their ratios, and whether both left the same archive."""
    with tempfile.TemporaryDirectory() as folder:
        videos = _copies(Path(folder))
        alone, joint = Path(folder) / "alone", Path(folder) / "joint"
        parts = _parts(videos, SegmentConfig(archive=str(alone)))
        with connected("local"):
            _whole(videos[:2], SegmentConfig(archive=f"{folder}/warm", decoders=1, segmenters=1))
            whole = _whole(videos, SegmentConfig(archive=str(joint), decoders=1, segmenters=1))
        same = archive_digest(str(alone)) == archive_digest(str(joint))
    total, slowest = sum(parts.values()), max(parts.values())
    return [
        *(Row(f"{name} alone", seconds, "s") for name, seconds in parts.items()),
        Row("whole job, Ray already running", whole, "s"),
        Row("whole job / sum of its parts", whole / total, "×"),
        Row("slowest part / sum of the parts (the floor)", slowest / total, "×"),
        Row("video seconds per second, whole job", 6 * len(videos) / whole, "×"),
        Row("same archive, byte for byte (1 = yes)", float(same), ""),
    ]


def _copies(folder: Path) -> list[VideoRef]:
    """Several files of each demo clip."""
    for clip in sorted(DEMO_CLIPS.glob("*.mp4")):
        for copy in range(COPIES):
            (folder / f"{clip.stem}-{copy}.mp4").write_bytes(clip.read_bytes())
    return find_videos([str(folder)])


def _parts(videos: list[VideoRef], config: SegmentConfig) -> dict[str, float]:
    """Seconds of each stage over all videos, one stage after the other; loading is not counted."""
    bundle = load_bundle(config.model)
    record = run_record(config, bundle)
    ArchiveWriter(config.archive, record).open_run()
    decode, limits = config.decode_config(frame_size(record), reach_of(record)), config.decode_limits()
    stages: dict[str, Callable[[StageRow], StageRow]] = {
        "probe": ProbeVideo(decode, limits, config.unit_length_s),
        "decode": DecodeUnit(decode, limits),
        "segment": SegmentUnit(config.model, "cpu", None, None),
        "commit": CommitUnit(config.archive, record),
    }
    rows = [row_to_probe(video) for video in videos]
    stages["decode"](new_row(unprobed(videos[0])))  # starts the decoding process
    seconds = {}
    for name, stage in stages.items():
        started = time.perf_counter()
        rows = [stage(row) for row in rows]
        seconds[name] = time.perf_counter() - started
        if name == "probe":
            rows = [new_row(wire.unit_from_text(row["units"])) for row in rows]
    return seconds


def _whole(videos: list[VideoRef], config: SegmentConfig) -> float:
    """Seconds of the job on the Ray that is connected, the start of its actors included."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    bundle = load_bundle(config.model)
    record = run_record(config, bundle)
    return segment(videos, config, record, NullRun(), Progress(Console(quiet=True))).seconds
