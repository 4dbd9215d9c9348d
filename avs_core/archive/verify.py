"""Does the archive hold what its commits say? And one hash over all of it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from avs_core import storage
from avs_core.archive.layout import (
    BOOKKEEPING,
    COMMITS,
    DEAD,
    CommitInfo,
    DeadLetter,
    FileRecord,
    Software,
    commits_folder,
    dead_folder,
    find_record,
    parse,
    staged_folder,
    staging,
    unit_ids,
    unit_path,
)
from avs_core.archive.read import runs
from avs_core.archive.schema import (
    FRAME_SCHEMA,
    ROW_SCHEMA,
    SIGHTING_SCHEMA,
    canonical_json,
    read_table,
    run_key,
)
from avs_core.archive.snapshots import SNAPSHOTS
from avs_core.archive.state import read_records
from avs_core.archive.verify_merged import check_snapshots, mask_problems
from avs_core.archive.verify_records import check_choices, check_letters, check_touched, meeting_problems, unit_problems
from avs_core.clip import video_key_of
from avs_core.errors import CorruptArchive, NotFound

FOLDERS = ("data", "frames", "tracks", SNAPSHOTS)
MISSING = "missing"
NO_LISTING = "no commit and no snapshot lists it"


@dataclass(frozen=True)
class VerifyReport:
    """What was checked. `problems` make an archive wrong; `notes` are harmless, such as files without a commit."""

    archive: str
    runs: int
    commits: int
    dead: int
    snapshots: int
    frames: int
    instances: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield (
            f"{self.archive}: {self.runs} runs, {self.commits} commits, {self.dead} dead letters, "
            f"{self.snapshots} snapshots, {self.frames} frames, {self.instances} instances"
        )
        yield from (f"problem: {problem}" for problem in self.problems)
        yield from (f"note: {note}" for note in self.notes)
        yield "everything holds" if not self.problems else f"{len(self.problems)} problems"


def verify(uri: str) -> VerifyReport:
    """Check every commit and snapshot of every run against its files: presence, size, hash, schema, rows, masks.
    And every record against its own name.

    The file of a commit that the newest snapshot covers may be gone. Reads the whole archive, one unit file or row
    group at a time. Raises `InputError` for a path that is no archive and `CorruptArchive` for a run record, commit
    or snapshot that can't be read at all.
    """
    archive = storage.normalise(uri)
    known = runs(archive)
    problems = [f"run {key}: it has commits and no record" for key in sorted(_committed_runs(archive) - {*known})]
    problems.extend(check_choices(archive, known))
    notes: list[str] = []
    listed: set[str] = set()
    commits: list[CommitInfo] = []
    dead = snapshots = 0
    for key, record in known.items():
        if run_key(record) != key:
            problems.append(f"run {key}: its record has the key {run_key(record)}")
        letters, names = unit_ids(archive, dead_folder(key)), unit_ids(archive, commits_folder(key))
        problems.extend((*check_letters(archive, key, letters), *check_touched(archive, key)))
        problems.extend(_check_staged(archive, key))
        both = sorted(letters & names)
        # One driver gave a unit up while another finished it: every reader goes by the commit.
        notes.extend(f"unit {unit_id}: committed and dead in run {key}; the commit counts" for unit_id in both)
        commits.extend(of_run := read_records(archive, commits_folder(key), CommitInfo, names))
        dead += len(letters)
        merged = check_snapshots(archive, key, {commit.unit_id: commit for commit in of_run})
        problems.extend(merged.problems)
        listed |= merged.listed
        snapshots += merged.snapshots
        good: list[CommitInfo] = []
        for name, commit in zip(sorted(names), of_run, strict=True):
            found = (*unit_problems(commit, name), *_check(archive, commit, name in merged.covered))
            problems.extend(f"unit {name}: {problem}" for problem in found)
            good.extend([] if found else [commit])
        problems.extend(meeting_problems(sorted(good, key=lambda commit: (commit.of, commit.unit_id))))
    listed |= {file.path for commit in commits for file in (commit.data, commit.frames)}
    return VerifyReport(
        archive=archive,
        runs=len(known),
        commits=len(commits),
        dead=dead,
        snapshots=snapshots,
        frames=sum(commit.frames.rows for commit in commits),
        instances=sum(commit.data.rows for commit in commits),
        problems=tuple(problems),
        notes=(*notes, *(f"{path}: {NO_LISTING}" for path in _tables(archive) if path not in listed)),
    )


def archive_digest(uri: str) -> str:
    """SHA-256 over the path and content of every file: equal for archives that are the same byte for byte.

    What jobs keep for themselves is left out (`BOOKKEEPING`): leases, what was measured, what was tried in vain. So is
    what dead letters tell of machines: the number of attempts, and which versions judged.
    """
    archive = storage.normalise(uri)
    digest = hashlib.sha256()
    paths = (storage.relative(found.uri, archive) for found in storage.list_files(archive))
    for path in sorted(path for path in paths if path.partition("/")[0] not in BOOKKEEPING):
        content = storage.read_bytes(storage.join(archive, path))
        if path.startswith(f"{DEAD}/"):
            letter = parse(DeadLetter, content, path).model_copy(update={"attempts": 0, "software": Software()})
            content = canonical_json(letter.model_dump(mode="json"))
        digest.update(f"{path}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _committed_runs(archive: str) -> set[str]:
    folder = storage.join(archive, COMMITS)
    paths = (storage.relative(found.uri, folder) for found in storage.list_files(folder))
    return {path.partition("/")[0].removeprefix("run=") for path in paths}


def _tables(archive: str) -> Iterator[str]:
    for kind in FOLDERS:
        for found in storage.list_files(storage.join(archive, kind)):
            yield storage.relative(found.uri, archive)


def _check(archive: str, commit: CommitInfo, covered: bool) -> Iterator[str]:
    tables: list[pa.Table] = []
    for file, schema in ((commit.data, ROW_SCHEMA), (commit.frames, FRAME_SCHEMA)):
        problem, table = _load(archive, file, schema)
        if table is not None:
            tables.append(table)
        elif not (covered and problem == MISSING):
            yield f"{file.path}: {problem}"
    if len(tables) == 2:
        instances, frames = tables
        yield from _check_rows(commit, instances, frames)


def _check_staged(archive: str, run_key: str) -> Iterator[str]:
    """Units that wait for the others of their video; one that is gone, or committed, was published meanwhile."""
    for unit_id in sorted(unit_ids(archive, staging(run_key), recursive=True)):
        uri = storage.join(archive, unit_path(staged_folder(run_key, video_key_of(unit_id)), unit_id))
        committed = storage.join(archive, unit_path(commits_folder(run_key), unit_id))
        found = list(_staged_problems(archive, uri))
        if found and storage.is_file(uri) and not storage.is_file(committed):
            yield from (f"staged unit {unit_id}: {problem}" for problem in found)


def _staged_problems(archive: str, uri: str) -> Iterator[str]:
    try:
        staged = find_record(CommitInfo, uri)
    except CorruptArchive as error:
        yield str(error)
        return
    if staged is not None:
        for file, schema in ((staged.data, SIGHTING_SCHEMA), (staged.frames, FRAME_SCHEMA)):
            problem, _ = _load(archive, file, schema)
            if problem:
                yield f"{file.path}: {problem}"


def _load(archive: str, file: FileRecord, schema: pa.Schema) -> tuple[str, pa.Table | None]:
    """The table of a file, or what is wrong with it."""
    try:
        content = storage.read_bytes(storage.join(archive, file.path))
    except NotFound:
        return MISSING, None
    if len(content) != file.bytes:
        return f"{len(content)} bytes, the commit says {file.bytes}", None
    if hashlib.sha256(content).hexdigest() != file.sha256:
        return "its SHA-256 is not the commit's", None
    try:
        table = read_table(content, file.path)
    except (pa.ArrowException, CorruptArchive) as error:
        return f"no readable Parquet: {error}", None
    if not table.schema.equals(schema):
        return f"its schema is not the archive's: {table.schema.names}", None
    if table.num_rows != file.rows:
        return f"{table.num_rows} rows, the commit says {file.rows}", None
    return "", table


def _check_rows(commit: CommitInfo, instances: pa.Table, frames: pa.Table) -> Iterator[str]:
    counted = sum(frames["n_instances"].to_pylist())
    if counted != instances.num_rows:
        yield f"its frames count {counted} instances, its rows {instances.num_rows}"
    strangers = {*instances["video_id"].unique().to_pylist(), *frames["video_id"].unique().to_pylist()}
    if strangers - {commit.video.video_id}:
        yield f"rows of other videos: {sorted(strangers - {commit.video.video_id})}"
    outside = {second for second in frames["second"].to_pylist() if not commit.start_s <= second < commit.stop_s}
    if outside and commit.start_s < commit.stop_s:
        yield f"frames outside of its seconds [{commit.start_s}, {commit.stop_s}): {sorted(outside)[:5]}"
    yield from mask_problems(instances)
