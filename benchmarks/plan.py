"""Planning a million videos: from scratch, with nothing to do, from a manifest; time, memory, and whether it is linear.

Real files on the local disk, empty ones, in folders of a thousand, and an archive with the name of a commit for each:
a plan opens neither. Each case is an `avs plan` of its own. `python -m benchmarks.plan --videos 100000` for other
sizes; with `--s3` files and archive are objects of a real S3 server on this machine.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from itertools import islice
from pathlib import Path

from avs_core import storage
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.layout import commits_folder, unit_path
from avs_core.models.bundle import load_bundle
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.plan import State
from avs_core.pipelines.segment import run_record
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.units import unprobed
from benchmarks.measure import Row
from jobs.main import main

SIZES = (100_000, 1_000_000)
CASES = (FROM_SCRATCH, NOTHING_TO_DO, FROM_A_MANIFEST) = ("from scratch", "nothing to do", "nothing to do, a manifest")
A_FOLDER = 1000
WRITERS = 16


def run(sizes: tuple[int, ...] = SIZES, place: Callable[[], AbstractContextManager[str]] | None = None) -> list[Row]:
    """Seconds and peak memory of each size, and the ratio of the largest to the smallest, by video.

    `place` gives a new folder or prefix for each size [default: on the local disk].
    """
    rows: list[Row] = []
    took: dict[tuple[str, int], float] = {}
    for size in sizes:
        with (place or _on_disk)() as folder:
            videos, archive = f"{folder}/videos", f"{folder}/archive"
            _make_files(videos, size)
            for case in CASES:
                if case == NOTHING_TO_DO:
                    _commit_all(videos, archive)
                found = _measured(_manifest(videos) if case == FROM_A_MANIFEST else videos, archive)
                expected = {State.NEW: size} if case == FROM_SCRATCH else {State.DONE: size}
                if found["states"] != expected:
                    raise AssertionError(f"the plan must be {expected}, got {found['states']}")
                took[case, size] = found["plan_s"]
                rows += [
                    Row(f"{size} videos, {case}: plan", found["plan_s"], "s"),
                    Row(f"{size} videos, {case}: peak memory", found["peak_mb"], "MB"),
                ]
    for case in CASES:
        per_video = [took[case, size] / size for size in (max(sizes), min(sizes))]
        rows.append(Row(f"{case}: time a video, {max(sizes)} against {min(sizes)}", per_video[0] / per_video[1], "×"))
    return rows


@contextmanager
def _on_disk() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        yield folder


@contextmanager
def on_s3() -> Iterator[str]:
    """A bucket of a SeaweedFS that runs as long."""
    from tests.s3_server import Seaweed

    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        seaweed = Seaweed(Path(folder))
        seaweed.start()
        os.environ.update(seaweed.server.environment)
        try:
            yield seaweed.server.uri
        finally:
            seaweed.stop()


def _make_files(folder: str, count: int) -> None:
    _touch(f"{folder}/{index // A_FOLDER:05d}/{index:08d}.mp4" for index in range(count))


def _commit_all(videos: str, archive: str) -> None:
    """The names of the commits of all videos; what they would hold is not there."""
    writer = ArchiveWriter(archive, run_record(config := SegmentConfig(archive=archive), load_bundle(config.model)))
    writer.open_run()
    units = (unprobed(video).unit_id for video in find_videos([videos]))
    _touch(f"{archive}/{unit_path(commits_folder(writer.run_key), unit_id)}" for unit_id in units)


def _manifest(videos: str) -> str:
    """A manifest of all the videos, beside their folder; each entry of it is looked up by itself."""
    manifest = f"{videos}.txt"
    storage.write_bytes(manifest, "\n".join(video.uri for video in find_videos([videos])).encode())
    return manifest


def _touch(uris: Iterable[str]) -> None:
    """Empty files or objects of these names."""
    left = iter(uris)
    with ThreadPoolExecutor(WRITERS) as pool:
        while names := list(islice(left, A_FOLDER)):
            if names[0].startswith("s3://"):
                list(pool.map(lambda name: storage.write_bytes(name, b""), names))
                continue
            for name in names:
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644))


def _measured(videos: str, archive: str) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.plan", "--child", videos, archive]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def _child(videos: str, archive: str) -> None:
    """Plan once and print what it took; its memory is that of the command, its seconds leave out the imports."""
    started = time.perf_counter()
    states = _avs_plan(videos, archive)
    planned = time.perf_counter()
    # Not getrusage: that starts from what the process had before exec, which is its parent's.
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    print(json.dumps({"plan_s": planned - started, "peak_mb": peak, "states": states}))


def _avs_plan(videos: str, archive: str) -> dict[str, int]:
    """How many videos the command finds in each state."""
    with redirect_stdout(io.StringIO()) as said:
        code = main(["plan", videos, "--archive", archive, "--json"])
    if code:
        raise AssertionError(f"the plan must end with 0, got {code}")
    states = json.loads(said.getvalue())["states"]
    return {state: count for state, count in states.items() if count}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--s3", action="store_true", help="on a real S3 server, not on the disk")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _child(*arguments.child)
    else:
        from benchmarks.__main__ import show

        show("plan", run(tuple(arguments.videos), on_s3 if arguments.s3 else None))
