"""Inputs that hang, eat memory, crash whoever decodes them or are no videos; decoders that die under good ones."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avs_core.archive.findings import findings
from avs_core.archive.verify import verify
from tests.chaos.conftest import CLIPS
from tests.chaos.nodes import DECODING, wait_for
from tests.chaos.scene import QUIETLY, UNITS, descendants, end, outcome, shown, start
from tests.media.corpus import CASES
from tests.tolls import Toll

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

LIMITS = ("--decode-stall-s", "4", "--decode-memory-mb", "256", "--max-pixels", str(16384 * 8640))
STRIKES = (signal.SIGSEGV, signal.SIGSTOP, signal.SIGKILL)


def huge(path: Path) -> None:
    """A small file whose frames are 212 MB each."""
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", 25, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 16384, 8640, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((8640 * 3 // 2, 16384), np.uint8), format="yuv420p")
        for _ in range(3):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def decoding(job: "subprocess.Popen[str]", names: set[str]) -> tuple[int, str] | None:
    """A decoding process of the job that has one of these videos open, and which."""
    for pid, title in descendants(job.pid):
        for file in Path(f"/proc/{pid}/fd").glob("*") if DECODING in title else ():
            with suppress(OSError):
                if (name := file.readlink().name) in names:
                    return pid, name
    return None


def lengthy(path: Path) -> None:
    """Eight seconds of coarse noise at 1080p: whoever decodes it has it open for long enough to be seen."""
    coarse = np.random.default_rng(0).integers(0, 256, (1080 * 3 // 2 // 60, 1920 // 60), np.uint8)
    noise = np.kron(coarse, np.ones((60, 60), np.uint8))
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", 25, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for number in range(8 * 25):
            rolled = np.roll(noise, number * 7, axis=1)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rolled, format="yuv420p")))
        out.mux(stream.encode(None))


@contextmanager
def deadly(job: "subprocess.Popen[str]", name: str) -> Iterator[list[int]]:
    """Whoever opens this video crashes, every time; who did so far."""
    crashed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            if found := decoding(job, {name}):
                with suppress(ProcessLookupError):
                    os.kill(found[0], signal.SIGSEGV)
                crashed.extend({found[0]}.difference(crashed))

    (thread := threading.Thread(target=watch)).start()
    try:
        yield crashed
    finally:
        over.set()
        thread.join()


def strike(job: "subprocess.Popen[str]", how: signal.Signals, names: set[str]) -> bool:
    """Whether a process that decodes one of these videos was struck; the video is then none of them any more."""
    deadline = time.monotonic() + 120
    while job.poll() is None and time.monotonic() < deadline:
        if found := decoding(job, names):
            os.kill(found[0], how)
            names.remove(found[1])
            return True
    return False


def test_the_guilty_are_dead_of_the_right_class_and_the_innocent_are_done(
    tmp_path: Path, demo_clips: list[Path], toll: Toll
) -> None:
    toll.fault = "inputs that hang, eat memory, crash, are garbage; decoders killed, crashed, stopped under good ones"
    (videos := tmp_path / "videos").mkdir()
    for clip in demo_clips[:CLIPS]:
        (videos / clip.name).write_bytes(clip.read_bytes())
    peaceful, archive = tmp_path / "peaceful", tmp_path / "archive"
    end(start("segment", str(videos), "--archive", str(peaceful), *QUIETLY, *UNITS), 0)

    huge(videos / "huge.mp4")
    lengthy(videos / "crashing.mp4")
    (videos / "garbage.mp4").write_bytes(b"not a video at all" * 100)
    (videos / "hanging.mp4").write_bytes(demo_clips[0].read_bytes())
    began = time.monotonic()
    job = start("segment", str(videos), "--archive", str(archive), *QUIETLY, *UNITS, *LIMITS)
    wait_for(lambda: list(archive.glob("_runs/*.json")) or job.poll() is not None, 120)
    (videos / "hanging.mp4").unlink()  # it was listed; whoever opens it now waits for ever
    os.mkfifo(videos / "hanging.mp4")
    innocent = {clip.name for clip in demo_clips[:CLIPS]}  # a second strike would meet it where it runs alone
    with deadly(job, "crashing.mp4") as crashed:
        struck = sum(strike(job, how, innocent) for how in STRIKES)
        end(job, 3)
    toll.injected = 3 + struck + len(crashed)
    assert struck == len(STRIKES)
    assert len(crashed) > 1
    toll.lost_s = time.monotonic() - began
    found = outcome(str(archive))
    assert set(found.dead) == {
        ("crashing.mp4", "decoder_crash"),
        ("garbage.mp4", "unreadable"),
        ("hanging.mp4", "timeout"),
        ("huge.mp4", "too_large"),
    }
    assert found.done == {clip.name for clip in demo_clips[:CLIPS]}
    assert shown(str(archive)) == shown(str(peaceful))
    toll.survived = True


def test_the_whole_corpus_is_one_job(tmp_path: Path, toll: Toll) -> None:
    """Every bad and odd file side by side, in the packs and units of a real job: each ends as its case says."""
    dead = {case.name: case.expected.dead_class for case in CASES if isinstance(case.expected, type)}
    done = {case.name: ",".join(case.expected) for case in CASES if not isinstance(case.expected, type)}
    toll.fault, toll.injected = "the corpus of bad and odd files as one job", len(dead)
    (good := tmp_path / "good").mkdir()
    (videos := tmp_path / "videos").mkdir()
    for case in CASES:
        case.make(good, videos / case.name)
    manifest, archive = tmp_path / "manifest.parquet", str(tmp_path / "archive")
    pq.write_table(pa.table({"uri": [str(videos / case.name) for case in CASES]}), manifest)
    ended = end(start("segment", str(manifest), "--archive", archive, *QUIETLY, "--decode-stall-s", "4"), 3)
    assert (ended["segmented"], ended["dead"], ended["failed"]) == (len(done), len(dead), 0)
    assert {found.name: found.note for found in findings(archive)} == dead | done
    assert not verify(archive).problems
    toll.survived = True
