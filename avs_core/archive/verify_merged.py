"""Do snapshots hold what they say, and what the commits say that they cover?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from avs_core import masks, storage
from avs_core.archive.layout import CommitInfo, FileRecord, commits_folder, find_record, unit_path
from avs_core.archive.merge import sha256_of
from avs_core.archive.schema import FRAME_SCHEMA, ROW_SCHEMA, TRACK_SCHEMA
from avs_core.archive.snapshots import (
    MergedFile,
    read_manifest,
    read_snapshot,
    snapshot_ages,
    snapshot_path,
)
from avs_core.errors import CorruptArchive, NotFound

SCHEMAS = {"data": ROW_SCHEMA, "frames": FRAME_SCHEMA, "tracks": TRACK_SCHEMA}
BOX = ("x0", "y0", "w", "h")


@dataclass(frozen=True)
class MergedReport:
    """What the snapshots of one run are worth: how many, what is wrong, the paths they list, the units they cover."""

    snapshots: int
    problems: tuple[str, ...]
    listed: frozenset[str]
    covered: frozenset[str]


def check_snapshots(archive: str, run_key: str, commits: Mapping[str, CommitInfo]) -> MergedReport:
    """Check each snapshot of a run, every file once, and the newest one's units against the commits (by unit id)."""
    problems: list[str] = []
    listed: set[str] = set()
    checked: set[tuple[str, ...]] = set()
    covered: frozenset[str] = frozenset()
    numbers = list(snapshot_ages(archive, run_key))
    for number in numbers:
        snapshot = read_snapshot(archive, run_key, number)
        listed |= {snapshot_path(run_key, number), snapshot.manifest.path}
        try:
            manifest = read_manifest(archive, snapshot)
        except (NotFound, CorruptArchive) as error:
            problems.append(f"snapshot {number}: {error}")
            continue
        covered = frozenset(manifest["unit_id"].to_pylist())
        wrong = _against_commits(archive, run_key, manifest, commits)
        problems.extend(f"snapshot {number}: {problem}" for problem in wrong)
        for index, file in enumerate(snapshot.files):
            paths = tuple(part.path for part in file.parts)  # silent videos alone have the same rows: none
            if paths not in checked:
                found = _check_file(archive, file, manifest.filter(pc.equal(manifest["file"], index)))
                problems.extend(f"snapshot {number}: {problem}" for problem in found)
                checked.add(paths)
                listed.update(paths)
    return MergedReport(len(numbers), tuple(problems), frozenset(listed), covered)


def mask_problems(instances: pa.Table, first: int = 0) -> Iterator[str]:
    """Rows whose mask does not fill its picture, or whose area or box is not that of the mask."""
    for index, row in enumerate(instances.select(["counts", "height", "width", "area", *BOX]).to_pylist(), first):
        rle = masks.from_row(row["counts"], row["height"], row["width"])
        if not masks.is_valid(rle):
            yield f"row {index}: the runs of its mask do not fill {row['height']}×{row['width']} pixels"
        elif (masks.area(rle), masks.bbox(rle)) != (row["area"], tuple(row[side] for side in BOX)):
            yield f"row {index}: its area or box is not that of its mask"


def _against_commits(
    archive: str, run_key: str, manifest: pa.Table, commits: Mapping[str, CommitInfo]
) -> Iterator[str]:
    """Units that were never committed, also since the commits were listed, or with other row counts."""
    columns = ("unit_id", "data_rows", "frame_rows")
    for unit_id, data, frames in zip(*(manifest[name].to_pylist() for name in columns), strict=True):
        uri = storage.join(archive, unit_path(commits_folder(run_key), unit_id))
        commit = commits.get(unit_id) or find_record(CommitInfo, uri)
        if commit is None:
            yield f"unit {unit_id}: it covers it, and there is no such commit"
        elif (commit.data.rows, commit.frames.rows) != (data, frames):
            said = f"the commit says {commit.data.rows} and {commit.frames.rows}"
            yield f"unit {unit_id}: {data} rows and {frames} frames, {said}"


def _check_file(archive: str, file: MergedFile, units: pa.Table) -> Iterator[str]:
    """Each part of a merged file, and its rows of each video, in order, against those of the units that it took up."""
    readable = True
    for kind, record in zip(SCHEMAS, file.parts, strict=True):
        problem = _problem(archive, record, SCHEMAS[kind])
        if problem:
            readable = False
            yield f"{record.path}: {problem}"
    if not readable:
        return
    for kind, column, record in (("rows", "data_rows", file.data), ("frames", "frame_rows", file.frames)):
        said = _summed(units, column)
        counted = _counted(archive, record)
        for video_id in sorted(said.keys() | counted.keys()):
            if said.get(video_id, 0) != counted.get(video_id, 0):
                yield (
                    f"{record.path}: {counted.get(video_id, 0)} {kind} of video {video_id}, "
                    f"the commits say {said.get(video_id, 0)}"
                )
        if said == counted and [*said] != [*counted]:
            yield f"{record.path}: its {kind} are not in the order of the manifest: readers take those of other videos"
    first = 0
    for group in _groups(archive, file.data):
        yield from (f"{file.data.path}: {problem}" for problem in mask_problems(group, first))
        first += group.num_rows


def _problem(archive: str, record: FileRecord, schema: pa.Schema) -> str:
    """What is wrong with a file as a whole; "" for nothing."""
    uri = storage.join(archive, record.path)
    try:
        size = storage.info(uri).size
        if size != record.bytes:
            return f"{size} bytes, the snapshot says {record.bytes}"
        if sha256_of(uri) != record.sha256:
            return "its SHA-256 is not the snapshot's"
    except NotFound:
        return "missing"
    try:
        with storage.open_read(uri) as stream:
            parquet = pq.ParquetFile(stream)
            if not parquet.schema_arrow.equals(schema):
                return f"its schema is not the archive's: {parquet.schema_arrow.names}"
            if parquet.metadata.num_rows != record.rows:
                return f"{parquet.metadata.num_rows} rows, the snapshot says {record.rows}"
    except pa.ArrowException as error:
        return f"no readable Parquet: {error}"
    return ""


def _summed(units: pa.Table, column: str) -> dict[str, int]:
    """How many each video has, in the order of the manifest."""
    summed: dict[str, int] = {}
    for name, number in zip(units["video_id"].to_pylist(), units[column].to_pylist(), strict=True):
        if number:
            summed[name] = summed.get(name, 0) + number
    return summed


def _counted(archive: str, record: FileRecord) -> dict[str, int]:
    """How many each video has, in the order in which the file begins with them."""
    counted: dict[str, int] = {}
    for group in _groups(archive, record, ["video_id"]):
        for found in group["video_id"].value_counts().to_pylist():
            counted[found["values"]] = counted.get(found["values"], 0) + found["counts"]
    return counted


def _groups(archive: str, record: FileRecord, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a file, one at a time."""
    with storage.open_read(storage.join(archive, record.path)) as stream:
        parquet = pq.ParquetFile(stream)
        for number in range(parquet.num_row_groups):
            yield parquet.read_row_group(number, columns=columns)
