"""A job that is disturbed, run again to its end, and compared with the one that nobody disturbed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from avs_core import storage
from avs_core.archive.read import committed_files, dead_letters, open_archive, read_commits
from avs_core.archive.verify import archive_digest, verify
from tests.tolls import Toll

QUIETLY = ("--json", "--no-tracking", "--no-report")
UNITS = ("--unit-s", "5")
"""So short that most clips are cut: staged units and published videos are disturbed too."""
DONE = (0, 3)
PATIENCE_S = 400
PAGE = 4096
"""Bytes."""


@dataclass(frozen=True)
class Outcome:
    """What an archive holds: a hash over its content, rows, pages of data, units, videos done, dead ones with class."""

    digest: str
    rows: int
    pages: int
    units: int
    done: frozenset[str]
    dead: tuple[tuple[str, str], ...]


def outcome(archive: str) -> Outcome:
    """Of an archive that holds what its commits say."""
    report = verify(archive)
    assert not report.problems
    letters, commits = dead_letters(archive).to_pylist(), read_commits(archive)
    return Outcome(
        digest=archive_digest(archive),
        rows=open_archive(archive).count_rows(),
        pages=sum(-(-storage.info(file).size // PAGE) for file in committed_files(archive)),
        units=len(commits),
        done=frozenset(PurePosixPath(commit.video.uri).name for commit in commits),
        dead=tuple(sorted((PurePosixPath(row["video_uri"]).name, row["error_class"]) for row in letters)),
    )


def units_done(archive: str) -> int:
    """Units that are committed, and those that wait for the rest of their video."""
    folders = (storage.join(archive, name) for name in ("_staged", "_commits"))
    return sum(found.uri.endswith(".json") for folder in folders for found in storage.list_files(folder))


def shown(archive: str) -> list[tuple[str, int, int, bytes]]:
    """What a reader gets, of an archive that holds what its commits say."""
    assert not verify(archive).problems
    columns = ["video_uri", "object_id", "frame_index", "counts"]
    return sorted(tuple(row.values()) for row in open_archive(archive).to_table(columns).to_pylist())


def start(verb: str, *arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """A verb in a session of its own, so that only the driver gets a signal."""
    command = [sys.executable, "-m", f"jobs.{verb}", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )


def end(job: "subprocess.Popen[str]", *codes: int) -> dict[str, Any]:
    """The JSON that a job ends with, "message" what it complained of; its exit code must be one of these, if any."""
    out, err = job.communicate(timeout=PATIENCE_S)
    assert not codes or job.returncode in codes, f"exit code {job.returncode}: {err}"
    assert job.returncode < 0 or "Traceback" not in err, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1]) if out else {"message": err}
    return found | {"code": job.returncode}


@dataclass(frozen=True)
class Scene:
    """Videos, the archive that is made of them, and what came out where nobody disturbed."""

    videos: str
    archive: str
    expected: Outcome
    undisturbed_s: float
    toll: Toll
    began: float

    def start(self, *flags: str, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """The main job."""
        return start(
            "segment", self.videos, "--archive", self.archive, *QUIETLY, *UNITS, *flags, environment=environment
        )

    def recover(self, *flags: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Run it again to its end; the archive is then as if nothing had happened."""
        ended = end(self.start(*flags, environment=environment), *DONE)
        self.check()
        return ended

    def check(self) -> None:
        """Nothing lost, nothing twice, every innocent video done, every guilty one dead of the right class."""
        self.toll.lost_s = max(time.monotonic() - self.began - self.undisturbed_s, 0.0)
        found, wanted = asdict(outcome(self.archive)), asdict(self.expected)
        differing = {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}
        assert not differing, f"found and wanted: {differing}"
        self.toll.survived = True

    def commits(self) -> int:
        """How many units are done."""
        return units_done(self.archive)

    def wait_for(self, job: "subprocess.Popen[str]", commits: int) -> None:
        """Until so many units are done. A job that has ended by then can't be struck."""
        while job.poll() is None and self.commits() < commits:
            time.sleep(0.1)
        assert job.poll() is None, f"the job had ended before {commits} units were seen: nothing was struck"


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Process ids below one, and what each calls itself."""
    for child in _children(pid):
        yield child, title_of(child)
        yield from descendants(child)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # gone meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # only this thread is gone
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def title_of(pid: int) -> str:
    """Its command line, or what it calls itself instead; "" once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
