"""A verb is killed with SIGKILL at a write, before or after the store has it: readers see the old state or the new."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.compact import compact
from avs_core.archive.current import current, make_current
from avs_core.archive.gc import gc
from avs_core.archive.schema import RunRecord
from avs_core.archive.verify import archive_digest, verify
from tests.archive import sample
from tests.chaos import faulty_s3
from tests.chaos.faulty_s3 import Exchange, Way
from tests.chaos.scene import DONE, QUIETLY, end, shown, start
from tests.s3_server import S3Server
from tests.tolls import Toll

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

OTHER = RunRecord(**{**sample.RECORD.model_dump(), "thresholds": {"mask": 0.6}})


class Killer:
    """Kills the process that sends the n-th write below a folder, before or after the store has it."""

    def __init__(self, number: int, after: bool, folder: str = "") -> None:
        self.victim: subprocess.Popen[str] | None = None
        self._left, self._after, self._folder = number, after, folder

    def __call__(self, exchange: Exchange) -> Way | None:
        """The choice of a front."""
        if not exchange.writes or self._folder not in exchange.path:
            return None
        self._left -= 1
        return self._strike if self._left == 0 else None

    def _strike(self, exchange: Exchange) -> None:
        if self._after:
            exchange.forward()
        assert self.victim is not None
        os.kill(self.victim.pid, signal.SIGKILL)
        exchange.reset()


@contextmanager
def killed(server: S3Server, killer: Killer, toll: Toll, verb: str, *arguments: str) -> Iterator[bool]:
    """Whether the verb was killed, or came to its end before there was such a write. All that it did counts as lost."""
    began = time.monotonic()
    with faulty_s3.in_front_of(server, killer) as front:
        killer.victim = start(verb, *arguments, environment=front.server.environment)
        code = end(killer.victim, -signal.SIGKILL, *DONE)["code"]
    if died := code == -signal.SIGKILL:
        toll.injected += 1
        toll.lost_s = (toll.lost_s or 0.0) + time.monotonic() - began
    yield died


def filled(archive: str) -> None:
    """Six videos, one of them cut into three."""
    writer = sample.opened(archive)
    for name in "abcdef":
        for unit in sample.units(sample.video(name), 3 if name == "a" else 1):
            sample.commit(writer, unit)


def tidy(archive: str) -> str:
    """Compact and collect; the hash of what is left."""
    compact(archive)
    gc(archive, older_than_s=0.0)
    return archive_digest(archive)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("verb", ["compact", "gc"])
def test_killed_at_any_write(verb: str, after: bool, s3_bucket: str, s3: S3Server, toll: Toll) -> None:
    toll.fault = f"kill -9 at a write of {verb}, {'after' if after else 'before'} its effect"
    flags = ["--older-than-days", "0"] if verb == "gc" else []
    filled(undisturbed := f"{s3_bucket}/undisturbed")
    rows, expected = shown(undisturbed), tidy(undisturbed)
    for number in range(1, 30):
        filled(archive := f"{s3_bucket}/{number}")
        if verb == "gc":
            compact(archive)
        with killed(s3, Killer(number, after), toll, verb, archive, "--json", *flags) as dead:
            if not dead:
                assert number > 3
                break
            assert shown(archive) == rows
        assert tidy(archive) == expected
        assert shown(archive) == rows
    toll.survived = True


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_the_flip(after: bool, s3_bucket: str, s3: S3Server, toll: Toll) -> None:
    toll.fault = f"kill -9 at the flip of current, {'after' if after else 'before'} its effect"
    old, new = (ArchiveWriter(s3_bucket, record) for record in (sample.RECORD, OTHER))
    for writer in (old, new):
        writer.open_run()
        sample.commit(writer, *sample.units(sample.video()))
    make_current(s3_bucket, old.run_key)
    with killed(s3, Killer(1, after), toll, "runs", "use", s3_bucket, new.run_key) as dead:
        assert dead
    assert chosen(s3_bucket) == (new if after else old).run_key
    make_current(s3_bucket, new.run_key)
    assert chosen(s3_bucket) == new.run_key
    assert not verify(s3_bucket).problems
    toll.survived = True


def chosen(archive: str) -> str:
    """The run that readers get."""
    found = current(archive)
    assert found is not None
    return found.run_key


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_scheduled_job_is_killed_at_the_flip(
    after: bool, s3_bucket: str, s3: S3Server, tmp_path: Path, demo_clips: list[Path], toll: Toll
) -> None:
    toll.fault = f"kill -9 of a scheduled job at its flip of current, {'after' if after else 'before'} its effect"
    (videos := tmp_path / "videos").mkdir()
    for clip in demo_clips[:2]:
        (videos / clip.name).write_bytes(clip.read_bytes())

    def reprocess(archive: str, threshold: str) -> list[str]:
        return ["reprocess", str(videos), "--archive", archive, "--threshold", threshold, *QUIETLY]

    archive, undisturbed = f"{s3_bucket}/archive", f"{s3_bucket}/undisturbed"
    for place in (undisturbed, archive):
        end(start(*reprocess(place, "0.5")), 0)
    end(start(*reprocess(undisturbed, "0.6")), 0)
    old = chosen(archive)
    with killed(s3, Killer(1, after, "/_current/"), toll, *reprocess(archive, "0.6")) as dead:
        assert dead
    assert (chosen(archive) == old) is not after
    end(start(*reprocess(archive, "0.6")), 0)  # once the dead job's lease has run out
    assert chosen(archive) == chosen(undisturbed) != old
    assert shown(archive) == shown(undisturbed)
    assert archive_digest(archive) == archive_digest(undisturbed)
    toll.survived = True
