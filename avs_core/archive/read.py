"""Reading an archive: only what commits list, of each video the newest version that is complete.

An archive may hold several runs, which are different answers to the same question: a reader takes one of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
from pydantic import BaseModel

from avs_core import storage
from avs_core.archive.layout import (
    RUNS,
    SUFFIX,
    CommitInfo,
    DeadLetter,
    FileRecord,
    commits_folder,
    dead_folder,
    parse,
    run_path,
    unit_ids,
    unit_path,
)
from avs_core.archive.schema import FRAME_SCHEMA, ROW_SCHEMA, RunRecord
from avs_core.errors import InputError

Record = TypeVar("Record", bound=BaseModel)

READERS = 16
"""Small objects are read this many at a time: their latency is all they cost."""

DEAD_SCHEMA = pa.schema(
    [
        ("unit_id", pa.string()),
        ("video_id", pa.string()),
        ("video_uri", pa.string()),
        ("fingerprint", pa.string()),
        ("start_s", pa.int32()),
        ("stop_s", pa.int32()),
        ("error_class", pa.string()),
        ("stage", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("flags", pa.string()),
    ]
)


def open_archive(uri: str, run: str | None = None) -> ds.Dataset:
    """The instances of a run as a data set of `ROW_SCHEMA`; nothing is read before it is asked for.

    Without `run` the archive must hold exactly one. Raises `InputError` for a path that is no archive, for a run
    that is not there and for a choice that was not made.
    """
    commits = shown_commits(uri, run)
    return _dataset(uri, [commit.data for commit in commits], ROW_SCHEMA)


def open_frames(uri: str, run: str | None = None) -> ds.Dataset:
    """The frames that were looked at as a data set of `FRAME_SCHEMA`; `run` as for `open_archive`."""
    commits = shown_commits(uri, run)
    return _dataset(uri, [commit.frames for commit in commits], FRAME_SCHEMA)


def committed_files(uri: str, run: str | None = None) -> list[str]:
    """The URIs of the Parquet files behind `open_archive`, for readers that take a list of files."""
    archive = storage.normalise(uri)
    return [storage.join(archive, commit.data.path) for commit in shown_commits(uri, run)]


def dead_letters(uri: str, run: str | None = None) -> pa.Table:
    """The dead letters of a run, sorted by video and unit; columns as `DEAD_SCHEMA`."""
    archive = storage.normalise(uri)
    key = resolve_run(archive, run)
    committed = unit_ids(archive, commits_folder(key))
    letters = _records(archive, dead_folder(key), DeadLetter)
    rows = [
        {
            **letter.model_dump(
                include={"unit_id", "start_s", "stop_s", "error_class", "stage", "message", "attempts"}
            ),
            "video_id": letter.video.video_id,
            "video_uri": letter.video.uri,
            "fingerprint": letter.video.fingerprint,
            "flags": ",".join(letter.flags),
        }
        for letter in sorted(letters, key=lambda letter: (letter.video.uri, letter.unit_id))
        if letter.unit_id not in committed
    ]
    return pa.Table.from_pylist(rows, schema=DEAD_SCHEMA)


def runs(uri: str) -> dict[str, RunRecord]:
    """The runs of an archive by key. Raises `InputError` for a path that is no archive."""
    archive = storage.normalise(uri)
    keys = sorted(unit_ids(archive, RUNS))
    if not keys:
        raise InputError(f"an archive must have a run ({RUNS}/<run key>{SUFFIX}); {archive} has none: check the path")
    paths = [storage.join(archive, run_path(key)) for key in keys]
    return {key: parse(RunRecord, storage.read_bytes(path), path) for key, path in zip(keys, paths, strict=True)}


def resolve_run(uri: str, run: str | None) -> str:
    """The run key that is meant: the one given, or the archive's only one."""
    known = runs(uri)
    if run is None and len(known) == 1:
        return next(iter(known))
    if run in known:
        return run
    named = ", ".join(f"{key} ({record.model})" for key, record in known.items())
    asked = "none was chosen" if run is None else f"{run} is none of them"
    raise InputError(f"one run of an archive is read at a time; {uri} holds {named}, and {asked}")


def read_commits(uri: str, run: str | None = None) -> list[CommitInfo]:
    """Every commit of a run, those of replaced versions too, sorted by unit id."""
    archive = storage.normalise(uri)
    return _records(archive, commits_folder(resolve_run(archive, run)), CommitInfo)


def shown_commits(uri: str, run: str | None = None) -> list[CommitInfo]:
    """The commits that readers see: of each video one cut of one version, sorted by video and start.

    A version is complete when every unit of a cut of it is committed or dead, and one at least committed. The
    newest complete version is shown; while a video has none, what there is of its newest.
    """
    archive = storage.normalise(uri)
    key = resolve_run(archive, run)
    dead = unit_ids(archive, dead_folder(key))
    cuts: dict[str, dict[tuple[str, int], list[CommitInfo]]] = defaultdict(lambda: defaultdict(list))
    for commit in _records(archive, commits_folder(key), CommitInfo):
        cuts[commit.video.video_id][commit.video.fingerprint, commit.of].append(commit)
    shown = [commit for of_video in cuts.values() for commit in _newest(of_video.values(), dead)]
    return sorted(shown, key=lambda commit: (commit.video.uri, commit.start_s))


def _newest(cuts: Iterable[Sequence[CommitInfo]], dead: frozenset[str]) -> Sequence[CommitInfo]:
    def rank(commits: Sequence[CommitInfo]) -> tuple[bool, int, str, int, int]:
        first = commits[0]
        return _complete(commits, dead), first.video.modified_us, first.video.fingerprint, len(commits), -first.of

    return max(cuts, key=rank)


def _complete(commits: Sequence[CommitInfo], dead: frozenset[str]) -> bool:
    done = {commit.unit_id for commit in commits}
    key, of = commits[0].unit_id.partition("-")[0], commits[0].of
    return all(name in done or name in dead for name in (f"{key}-{index:05d}of{of:05d}" for index in range(of)))


def _records(archive: str, folder: str, kind: type[Record]) -> list[Record]:
    """The JSON records of a folder, sorted by unit id."""
    uris = [storage.join(archive, unit_path(folder, unit_id)) for unit_id in sorted(unit_ids(archive, folder))]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda uri: parse(kind, storage.read_bytes(uri), uri), uris))


def _dataset(uri: str, files: Iterable[FileRecord], schema: pa.Schema) -> ds.Dataset:
    """A data set over files whose sizes are known, so that opening it asks the store nothing."""
    filesystem, root = storage.arrow_filesystem(uri)
    layout = ds.ParquetFileFormat()
    fragments = [
        layout.make_fragment(f"{root}/{file.path}", filesystem=filesystem, file_size=file.bytes) for file in files
    ]
    return ds.FileSystemDataset(fragments, schema, layout, filesystem)
