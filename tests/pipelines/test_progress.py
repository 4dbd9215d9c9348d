"""Progress on a real pseudo-terminal, and as plain lines where there is none."""

import io
import os
import pty
import select
import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from avs_core.errors import ConfigError
from avs_core.pipelines.progress import Progress, Snapshot, clock_time

SCRIPT = """
import sys, time
from avs_core.pipelines.progress import Progress
progress = Progress()
with progress.over(videos=4, seconds=7200.0):
    for done in (1, 2):
        progress.update(videos=done, seconds=done * 1800.0, dead=1)
        time.sleep(0.6)
    print('{"answer": 42}')
"""


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def plain(clock: Clock, every_s: float = 30.0) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    return Progress(Console(file=out, width=200), every_s, clock), out


def test_the_facts_follow_from_totals_and_the_clock() -> None:
    clock = Clock()
    progress, out = plain(clock)
    with progress.over(videos=4, seconds=7200.0):
        clock.now += 60
        progress.update(videos=1, seconds=1800.0, dead=1)
        snapshot = progress.snapshot()
        assert snapshot.realtime == pytest.approx(30.0)
        assert snapshot.share == pytest.approx(0.25)
        assert snapshot.eta_s == pytest.approx(180.0)
        assert snapshot.line() == "2/4 videos  0.50/2.00 h  30.0× realtime  3:00 left  1 dead"
        assert snapshot.metrics()["progress.video_s"] == 1800.0
    assert out.getvalue() == f"done after 1:00: {snapshot.line()}\n"


def test_before_anything_is_done_nothing_is_predicted() -> None:
    progress, _ = plain(Clock())
    with progress.over(videos=3, seconds=60.0):
        assert progress.snapshot().eta_s is None
        assert "progress.eta_s" not in progress.snapshot().metrics()
        assert "left" not in progress.snapshot().line()


def test_without_known_lengths_the_videos_count() -> None:
    assert Snapshot(1, 4, 1, 0.0, 0.0, 10.0).share == pytest.approx(0.5)
    assert Snapshot(0, 0, 0, 0.0, 0.0, 10.0).share == 0.0


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_snapshot_is_always_finite(videos: int, dead: int, done: float, total: float, elapsed: float) -> None:
    snapshot = Snapshot(videos, videos + dead, dead, done, total, elapsed)
    assert 0.0 <= snapshot.share <= 1.0
    assert snapshot.eta_s is None or snapshot.eta_s >= 0.0
    assert all(isinstance(value, float) for value in snapshot.metrics().values())
    assert "\n" not in snapshot.line()


def test_an_interrupted_job_says_so() -> None:
    progress, out = plain(Clock())
    with pytest.raises(KeyboardInterrupt), progress.over(videos=1, seconds=1.0):
        raise KeyboardInterrupt
    assert out.getvalue().startswith("stopped after 0:00: 0/1 videos")


def test_plain_lines_come_without_an_update_and_end_with_the_block() -> None:
    progress, out = plain(Clock(), every_s=0.02)
    with progress.over(videos=1, seconds=1.0):
        for _ in range(250):
            if out.getvalue().count("working: ") >= 2:
                break
            threading.Event().wait(0.02)
        else:
            pytest.fail("no line came within 5 s")
    assert not any(thread.name == "progress" for thread in threading.enumerate())
    assert "\x1b" not in out.getvalue()


def test_the_pause_between_lines_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="positive"):
        Progress(every_s=0)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (90061, "25:01:01")])
def test_clock_time(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text


@pytest.mark.parametrize("columns", [120, 40])
def test_on_a_terminal_a_live_line_and_standard_output_stays_clean(columns: int) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=slave, env=environment, text=True
    ) as process:
        os.close(slave)
        shown = _read_all(master)
        assert process.stdout is not None
        answer = process.stdout.read()
    os.close(master)
    assert process.returncode == 0
    assert answer == '{"answer": 42}\n'
    assert "2/4 videos" in shown
    assert "3/4 videos" in shown
    assert ("━" in shown) == (columns == 120)
    assert "\x1b[2K" in shown  # the line is rewritten in place
    assert "done after 0:0" in shown.splitlines()[-1]


def _read_all(master: int) -> str:
    data = b""
    while select.select([master], [], [], 30)[0]:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not chunk:
            break
        data += chunk
    return data.decode()
