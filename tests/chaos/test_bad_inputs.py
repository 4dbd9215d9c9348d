"""Inputs that hang, eat memory or are no videos, and decoding processes that crash or stand still under good ones."""

import os
import signal
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest

from tests.chaos.conftest import CLIPS
from tests.chaos.nodes import DECODING, wait_for
from tests.chaos.scene import QUIETLY, UNITS, descendants, end, outcome, shown, start
from tests.tolls import Toll

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

LIMITS = ("--decode-stall-s", "4", "--decode-memory-mb", "256")
STRIKES = (signal.SIGSEGV, signal.SIGSTOP, signal.SIGKILL)


def huge(path: Path) -> None:
    """A small file whose frames are 53 MB each."""
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", 25, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 8192, 4320, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((4320 * 3 // 2, 8192), np.uint8), format="yuv420p")
        for _ in range(30):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def decoding(job: "subprocess.Popen[str]") -> list[int]:
    """The job's decoding processes."""
    return [pid for pid, title in descendants(job.pid) if DECODING in title]


def strike(job: "subprocess.Popen[str]", how: signal.Signals) -> bool:
    """Whether there was a decoding process to be struck."""
    wait_for(lambda: decoding(job) or job.poll() is not None, 120)
    time.sleep(1.0)
    for pid in decoding(job)[:1]:
        os.kill(pid, how)
        return True
    return False


def test_the_guilty_are_dead_of_the_right_class_and_the_innocent_are_done(
    tmp_path: Path, demo_clips: list[Path], toll: Toll
) -> None:
    toll.fault = "inputs that hang, eat memory, are garbage; decoders killed, crashed and stopped under good ones"
    (videos := tmp_path / "videos").mkdir()
    for clip in demo_clips[:CLIPS]:
        (videos / clip.name).write_bytes(clip.read_bytes())
    peaceful, archive = tmp_path / "peaceful", tmp_path / "archive"
    end(start("segment", str(videos), "--archive", str(peaceful), *QUIETLY, *UNITS), 0)

    huge(videos / "huge.mp4")
    (videos / "garbage.mp4").write_bytes(b"not a video at all" * 100)
    (videos / "hanging.mp4").write_bytes(demo_clips[0].read_bytes())
    began = time.monotonic()
    job = start("segment", str(videos), "--archive", str(archive), *QUIETLY, *UNITS, *LIMITS)
    wait_for(lambda: list(archive.glob("_runs/*.json")) or job.poll() is not None, 120)
    (videos / "hanging.mp4").unlink()  # it was listed; whoever opens it now waits for ever
    os.mkfifo(videos / "hanging.mp4")
    toll.injected = 3 + sum(strike(job, how) for how in STRIKES)
    end(job, 3)
    toll.lost_s = time.monotonic() - began
    found = outcome(str(archive))
    assert found.dead == (("garbage.mp4", "unreadable"), ("hanging.mp4", "timeout"), ("huge.mp4", "too_large"))
    assert found.done == {clip.name for clip in demo_clips[:CLIPS]}
    assert shown(str(archive)) == shown(str(peaceful))
    toll.survived = True
