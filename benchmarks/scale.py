"""The main job on one very long video, and on very many short ones: memory of every process, object store, units.

The net is a tiny one (64 pixels), so that what is measured is the pipeline: reading, seeking, cutting, queues, commits.
`python -m benchmarks.scale --hours 10 --clips 10000` is the full size; videos are made in seconds (a stream copied in a
loop, hard links), in a folder that is removed in the end.
"""

import argparse
import logging
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import ray
import torch
from rich.console import Console

from avs_core.clip import AUDIO_RATE
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import BundleConfig, load_bundle, save_bundle
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareNet
from avs_core.pipelines.cluster import connected
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.progress import Progress
from avs_core.pipelines.segment import run_record, segment
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.tracking import NullRun
from benchmarks.measure import Row

HOURS, CLIPS = 0.1, 50
LOOP_S, CLIP_S, FPS = 20, 5, 25
LOOK_S = 0.5


@dataclass
class Peaks:
    """MB (10⁶ bytes) at their highest: memory that a process has for itself, and the object store's touched pages."""

    driver: float = 0.0
    workers: float = 0.0
    largest: float = 0.0
    store: float = 0.0

    def look(self) -> None:
        """Take in how it stands now."""
        processes = list(_descendants())
        sizes = [_mb(process, "RssAnon") for process in processes]
        self.driver = max(self.driver, _mb(Path("/proc/self"), "RssAnon"))
        self.workers = max(self.workers, sum(sizes))
        self.largest = max([self.largest, *sizes])
        self.store = max([self.store, *(_mb(process, "RssShmem") for process in processes)])


def run(hours: float = HOURS, clips: int = CLIPS, fps: int = FPS) -> list[Row]:
    """Peaks, seconds and units of both jobs; a size of 0 leaves one out. `fps` are those of the long video."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _tiny_bundle(folder / "bundle")
        jobs = {}
        if hours:
            jobs[f"{hours:g} h at 1080p, {fps} fps"] = long_video(folder / "long", hours, fps)
        if clips:
            jobs[f"{clips} clips of {CLIP_S} s"] = short_clips(folder / "short", clips)
        return [
            row
            for number, (what, inputs) in enumerate(jobs.items())
            for row in _job(what, inputs, SegmentConfig(archive=f"{folder}/archive-{number}", model=model))
        ]


def _job(what: str, inputs: Path, config: SegmentConfig) -> Iterator[Row]:
    record = run_record(config, load_bundle(config.model))
    started = time.perf_counter()
    with connected("local"), _watched() as peaks:
        store = ray.cluster_resources().get("object_store_memory", 0.0) / 1e6
        result = segment(find_videos([str(inputs)]), config, record, NullRun(), Progress(Console(quiet=True)))
    seconds = time.perf_counter() - started
    units = sum(1 for _ in Path(config.archive).glob("_commits/*/*.json"))
    yield Row(f"{what} (tiny net): units committed", units, "")
    yield Row(f"{what}: dead or failed", result.dead + result.failed, "")
    yield Row(f"{what}: seconds of video a second", result.video_seconds / seconds, "×")
    yield Row(f"{what}: the job", seconds, "s")
    yield Row(f"{what}: driver, peak of its own memory", peaks.driver, "MB")
    yield Row(f"{what}: all other processes, peak of the sum", peaks.workers, "MB")
    yield Row(f"{what}: largest of them", peaks.largest, "MB")
    yield Row(f"{what}: object store, pages touched", peaks.store, "MB")
    yield Row(f"{what}: object store, its limit", store, "MB")  # at the limit, touched says nothing of what was needed


@contextmanager
def _watched() -> Iterator[Peaks]:
    """Peaks of this process and of its children while the block runs."""
    peaks, ended = Peaks(), threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_S):
            peaks.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()
    peaks.look()


def _descendants() -> Iterator[Path]:
    """/proc of each process that this one has started, and of theirs."""
    parents: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # gone meanwhile
            parents[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    found = [os.getpid()]
    for pid in found:
        found += parents[pid]
    return (Path("/proc") / str(pid) for pid in found[1:])


def _mb(process: Path, field: str) -> float:
    """A line of a process's status, as MB; 0 once it is gone."""
    with suppress(OSError):
        for line in (process / "status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def long_video(folder: Path, hours: float, fps: int) -> Path:
    """One 1080p video with sound: a loop of some seconds, copied without being encoded again."""
    folder.mkdir()
    loop = _made(folder.with_name("loop.mp4"), LOOP_S, 1920, 1080, fps)
    with av.open(loop) as source, av.open(folder / "long.mp4", "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for lap in range(max(round(hours * 3600 / LOOP_S), 1)):
            source.seek(0)
            for packet in source.demux():
                if packet.dts is None:
                    continue
                shift = round(lap * LOOP_S / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    return folder


def short_clips(folder: Path, clips: int) -> Path:
    """Many names of one small file."""
    folder.mkdir()
    one = _made(folder.with_name("clip.mp4"), CLIP_S, 640, 360)
    for number in range(clips):
        os.link(one, folder / f"{number:06d}.mp4")
    return folder


def _made(path: Path, seconds: int, width: int, height: int, fps: int = FPS) -> Path:
    """A bar that goes through noise, and a tone; no B-frames, so that laps follow each other without a gap."""
    still = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    still = still.repeat(8, 0).repeat(8, 1)
    tone = (np.sin(np.arange(AUDIO_RATE * seconds) * 440 * 2 * np.pi / AUDIO_RATE) * 9000).astype(np.int16)
    with av.open(path, "w") as out:
        picture = out.add_stream("libx264", fps, options={"preset": "ultrafast", "bf": "0", "g": str(2 * fps)})
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        sound = out.add_stream("aac", AUDIO_RATE)
        for number in range(seconds * fps):
            image = still.copy()
            image[:, number * 4 % (width - 64) :][:, :64] = 255
            out.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            if number % fps == 0:
                heard = tone[number // fps * AUDIO_RATE :][:AUDIO_RATE]
                frame = av.AudioFrame.from_ndarray(heard[None], format="s16", layout="mono")
                frame.sample_rate, frame.pts = AUDIO_RATE, number // fps * AUDIO_RATE
                out.mux(sound.encode(frame))
        out.mux(picture.encode(None))
        out.mux(sound.encode(None))
    return path


def _tiny_bundle(folder: Path) -> str:
    """A net that costs next to nothing and finds something everywhere."""
    torch.manual_seed(0)
    made = InstanceAwareConfig(
        backbone="tf_efficientnet_lite0", categories=3, queries=5, learnt=1, channels=16, heads=2, hidden=8, finest=8
    )
    net = InstanceAwareNet(made).eval()
    net.classes.bias.data = torch.tensor([0.0, 0.0, 0.0, -3.0])
    config = BundleConfig(
        name="tiny", arch="instance_aware", instance_aware=made, audio_encoder="audio_cnn", size=64, threshold=0.4
    )
    save_bundle(folder, config, net, AudioCNN(), card="# Tiny\n", categories=("dog", "cat", "cow"))
    return str(folder)


if __name__ == "__main__":
    from benchmarks.__main__ import show

    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--hours", type=float, default=HOURS, help="length of the long video; 0: leave it out")
    parser.add_argument("--clips", type=int, default=CLIPS, help="how many short ones; 0: leave them out")
    parser.add_argument("--fps", type=int, default=FPS, help="frames a second of the long video")
    args = parser.parse_args()
    show("scale", run(args.hours, args.clips, args.fps))
