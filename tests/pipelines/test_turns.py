"""One process of a machine at a time, with processes that are killed."""

import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from avs_core.pipelines.turns import turn

HOLD = """
import sys, time
from avs_core.pipelines.turns import turn
with turn(sys.argv[1]):
    print("mine", flush=True)
    {}
"""


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a turn that nobody else has."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return uuid.uuid4().hex


def holder(name: str, then: str) -> "subprocess.Popen[str]":
    """A process that has the turn, or waits for it."""
    return subprocess.Popen([sys.executable, "-c", HOLD.format(then), name], stdout=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_the_turn_of_a_killed_process_is_over(name: str) -> None:
    with holder(name, "time.sleep(600)") as first:
        assert said(first) == "mine\n"
        with holder(name, "time.sleep(600)") as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(2)
            first.send_signal(signal.SIGKILL)
            assert said(second) == "mine\n"
            second.kill()


def test_a_turn_ends_with_its_block_and_others_have_theirs_meanwhile(name: str) -> None:
    with turn(name), holder(f"{name}-other", "pass") as other:
        assert other.wait(60) == 0
    with pytest.raises(ValueError, match="within"), turn(name):
        raise ValueError("within")
    with holder(name, "pass") as next_one:
        assert next_one.wait(60) == 0
