"""Reading an archive: of each video the newest version that is complete, from the snapshot and the commits after it.

An archive may hold several runs, which are different answers to the same question: a reader takes one of them, the
current one unless it names another.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from avs_core import storage
from avs_core.archive.current import current
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
)
from avs_core.archive.ledger import VIDEO_ID
from avs_core.archive.merge import pending_videos, read_videos
from avs_core.archive.schema import FRAME_SCHEMA, ROW_GROUP, ROW_SCHEMA, TRACK_SCHEMA, RunRecord, read_table
from avs_core.archive.snapshots import NO_FILE, manifest_rows, read_snapshot, snapshot_ages
from avs_core.archive.state import RunState, load_state, read_letters_of, read_records
from avs_core.archive.tracks import TRACK_ORDER, tracks_of
from avs_core.errors import CorruptArchive, InputError

VIDEO_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("video_uri", pa.string()),
        ("fingerprint", pa.string()),
        ("size", pa.int64()),
        ("modified_us", pa.int64()),
        ("seconds", pa.int64()),
    ]
)
SNAPSHOT_SCHEMA = pa.schema(
    [
        ("number", pa.int32()),
        ("made", pa.timestamp("us", "UTC")),  # when the store got it
        ("units", pa.int64()),
        ("rows", pa.int64()),
        ("frames", pa.int64()),
        ("files", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
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
        ("code_version", pa.string()),
        ("decoder", pa.string()),
    ]
)


def open_archive(uri: str, run: str | None = None, snapshot: int | None = None) -> ds.Dataset:
    """The instances of a run as a data set of `ROW_SCHEMA`; nothing is read before it is asked for.

    Without `run` the archive must hold exactly one. With `snapshot`, what that one holds, whatever came later. Where
    videos changed since the last compaction, the row groups of merged files that held them are read into memory.
    Raises `InputError` for a path that is no archive, for a run or a snapshot that is not there and for a choice
    that was not made.
    """
    return _dataset(run_state(uri, run, snapshot), "data", ROW_SCHEMA)


def open_frames(uri: str, run: str | None = None, snapshot: int | None = None) -> ds.Dataset:
    """The frames that were looked at as a data set of `FRAME_SCHEMA`; `run`, `snapshot` as for `open_archive`."""
    return _dataset(run_state(uri, run, snapshot), "frames", FRAME_SCHEMA)


def open_tracks(uri: str, run: str | None = None, snapshot: int | None = None) -> pa.Table:
    """The tracks (`TRACK_SCHEMA`) sorted by video and object; `run`, `snapshot` as for `open_archive`.

    Those of merged files are read, those of other videos are computed from their rows, one video at a time.
    """
    state = run_state(uri, run, snapshot)
    stale = pa.array(sorted(state.dropped | state.grown), pa.string())
    tables = [TRACK_SCHEMA.empty_table()]
    for merged in state.files:
        table = read_table(storage.read_bytes(uri := storage.join(state.archive, merged.tracks.path)), uri)
        tables.append(table.filter(pc.invert(pc.is_in(table["video_id"], stale))).replace_schema_metadata(None))
    for video in read_videos(state.archive, state.files, pending_videos(state)):
        tables.append(tracks_of(video.rows))
    return pa.concat_tables(tables).sort_by(TRACK_ORDER)


def videos(uri: str, run: str | None = None, snapshot: int | None = None) -> pa.Table:
    """The videos that are shown, sorted by URI; columns as `VIDEO_SCHEMA`. `run`, `snapshot` as for `open_archive`.

    Rows hold no date: this table's `modified_us` joined by `video_id` gives "in March".
    """
    state = run_state(uri, run, snapshot)
    columns = ["video_id", "video_uri", "fingerprint", "size", "modified_us", "start_s", "stop_s"]
    units = [manifest_rows(state.pending).select(columns)]
    if state.opened is not None:
        held = state.opened.manifest.filter(pc.not_equal(state.opened.manifest["file"], NO_FILE))
        gone = pc.is_in(held["video_id"], pa.array(sorted(state.dropped), pa.string()))
        units.append(held.filter(pc.invert(gone)).select(columns))
    table = pa.concat_tables(units)
    table = table.append_column("seconds", pc.subtract(table["stop_s"], table["start_s"]).cast(pa.int64()))
    keys = ["video_id", "video_uri", "fingerprint", "size"]
    summed = table.group_by(keys).aggregate([("modified_us", "max"), ("seconds", "sum")])
    summed = summed.rename_columns(VIDEO_SCHEMA.names)
    return summed.cast(VIDEO_SCHEMA).sort_by("video_uri")


def committed_files(uri: str, run: str | None = None, snapshot: int | None = None) -> list[str]:
    """The URIs of the Parquet files behind `open_archive`, for readers that take a list of files.

    Raises `InputError` when a merged file holds videos that were replaced since: a list can't leave them out.
    """
    state = run_state(uri, run, snapshot)
    loose = [span for span in state.spans(state.dropped).values() if span.data[1] > span.data[0]]
    if loose:
        raise InputError(
            f"a list of files shows whole files; {len(loose)} videos in merged files of {state.archive} were replaced "
            f"since the last compaction: compact the archive (avs compact), or read it with open_archive"
        )
    records = [*(file.data for file in state.files), *(commit.data for commit in state.pending)]
    return [storage.join(state.archive, record.path) for record in records]


def run_state(uri: str, run: str | None = None, snapshot: int | None = None) -> RunState:
    """What readers of a run see. Raises as `open_archive`."""
    archive = storage.normalise(uri)
    return load_state(archive, resolve_run(archive, run), snapshot)


def open_videos(uri: str, run: str | None, video_ids: Iterable[str]) -> tuple[ds.Dataset, ds.Dataset]:
    """The instances and the frames of these videos alone; of a large archive much less is opened than for all.

    Only their commits, and in merged files only the row groups that hold some of them. A filter of `open_archive` by
    `video_uri` reads that column of the whole archive: pyarrow skips no row groups by a dictionary.
    """
    archive, wanted = storage.normalise(uri), sorted(video_ids)
    key = resolve_run(archive, run)
    known = frozenset(wanted)
    units = [name for name in unit_ids(archive, commits_folder(key)) if name[:VIDEO_ID] in known]
    state = load_state(archive, key, units=units)
    return _of_videos(state, "data", ROW_SCHEMA, known), _of_videos(state, "frames", FRAME_SCHEMA, known)


def list_snapshots(uri: str, run: str | None = None) -> pa.Table:
    """The snapshots of a run, ascending; columns as `SNAPSHOT_SCHEMA`."""
    archive = storage.normalise(uri)
    key = resolve_run(archive, run)
    rows = []
    for number, made_us in snapshot_ages(archive, key).items():
        snapshot = read_snapshot(archive, key, number)
        rows.append(
            {
                "number": number,
                "made": made_us,
                "units": snapshot.units,
                "rows": sum(file.data.rows for file in snapshot.files),
                "frames": sum(file.frames.rows for file in snapshot.files),
                "files": len(snapshot.files),
                "bytes": sum(file.bytes for file in snapshot.files),
            }
        )
    return pa.Table.from_pylist(rows, schema=SNAPSHOT_SCHEMA)


def dead_letters(uri: str, run: str | None = None) -> pa.Table:
    """The dead letters of a run, sorted by video and unit; columns as `DEAD_SCHEMA`."""
    return letters_table(read_letters(uri, run))


def read_letters(uri: str, run: str | None = None) -> list[DeadLetter]:
    """The dead letters of a run whole, sorted by video and unit."""
    archive = storage.normalise(uri)
    key = resolve_run(archive, run)
    dead = unit_ids(archive, dead_folder(key)) - unit_ids(archive, commits_folder(key))
    letters = read_letters_of(archive, key, dead)
    return sorted(letters, key=lambda letter: (letter.video.uri, letter.unit_id))


def letters_table(letters: Iterable[DeadLetter]) -> pa.Table:
    """Dead letters in their order; columns as `DEAD_SCHEMA`."""
    rows = [
        {
            **letter.model_dump(
                include={"unit_id", "start_s", "stop_s", "error_class", "stage", "message", "attempts"}
            ),
            "video_id": letter.video.video_id,
            "video_uri": letter.video.uri,
            "fingerprint": letter.video.fingerprint,
            "flags": ",".join(letter.flags),
            "code_version": letter.software.code,
            "decoder": letter.software.decoder,
        }
        for letter in letters
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
    """The run key that is meant: the one given, or the current one, or the archive's only one."""
    known = runs(uri)
    chosen = current(uri)
    if run is None and chosen is not None and chosen.run_key in known:
        return chosen.run_key
    if run is None and len(known) == 1:
        return next(iter(known))
    if run in known:
        return run
    named = ", ".join(f"{key} ({record.model})" for key, record in known.items())
    asked = "none was chosen" if run is None else f"{run} is none of them"
    raise InputError(
        f"one run of an archive is read at a time; {uri} holds {named}, and {asked}: name it, or choose one for every "
        f"reader (avs runs use)"
    )


def read_commits(uri: str, run: str | None = None) -> list[CommitInfo]:
    """Every commit of a run, those of replaced versions too, sorted by unit id."""
    archive = storage.normalise(uri)
    folder = commits_folder(resolve_run(archive, run))
    return read_records(archive, folder, CommitInfo, unit_ids(archive, folder))


def _dataset(state: RunState, kind: str, schema: pa.Schema) -> ds.Dataset:
    """The merged files but the row groups that hold dropped videos, what else is in those, and the pending files."""
    loose = {span.file for span in state.spans(state.dropped).values()}
    whole = [getattr(file, kind) for index, file in enumerate(state.files) if index not in loose]
    fragments = [*map(_fragments(state.archive), [*whole, *(getattr(commit, kind) for commit in state.pending)])]
    rest: list[pa.Table] = []
    for index in sorted(loose):
        some, table = _without(state, index, kind)
        fragments.extend(some)
        rest.append(table)
    filesystem, _ = storage.arrow_filesystem(state.archive)
    dataset = ds.FileSystemDataset(fragments, schema, ds.ParquetFileFormat(), filesystem)
    if not rest:
        return dataset
    both = ds.dataset([dataset, ds.dataset([table.cast(schema) for table in rest])])
    # Without a filter pyarrow counts the rows of a file, also where some of its row groups are left out.
    return both.filter(pc.field("object_id" if kind == "data" else "second") >= 0)


def _of_videos(state: RunState, kind: str, schema: pa.Schema, video_ids: frozenset[str]) -> ds.Dataset:
    """The row groups of merged files that hold some of these videos, and pending files.

    Where some count no more in merged files, what their neighbours have there is read into memory: a row does not tell
    of which version it is.
    """
    lasting, bounds = video_ids - state.dropped, defaultdict[int, list[tuple[int, int]]](list)
    for span in state.spans(lasting).values():
        bounds[span.file].append(getattr(span, kind))
    fragment, (filesystem, _) = _fragments(state.archive), storage.arrow_filesystem(state.archive)
    pending = [fragment(getattr(commit, kind)) for commit in state.pending if commit.video.video_id in video_ids]
    merged = [
        fragment(getattr(state.files[index], kind)).subset(row_group_ids=_groups(found))
        for index, found in sorted(bounds.items())
    ]
    these, layout = _among(video_ids), ds.ParquetFileFormat()
    for index, found in bounds.items():
        if not state.files[index].in_order:
            groups = fragment(getattr(state.files[index], kind)).subset(row_group_ids=_groups(found))
            held = ds.FileSystemDataset([groups], schema, layout, filesystem)
            _check_places(state, held.count_rows(filter=_among(lasting)), found)
    if lasting == video_ids:
        return ds.FileSystemDataset([*merged, *pending], schema, layout, filesystem).filter(these)
    old = ds.FileSystemDataset(merged, schema, layout, filesystem)
    kept = old.to_table(filter=_among(lasting))
    new = ds.FileSystemDataset(pending, schema, layout, filesystem)
    return ds.dataset([new, ds.dataset(kept)]).filter(these)


def _check_places(state: RunState, found: int, bounds: Iterable[tuple[int, int]]) -> None:
    """Raise `CorruptArchive` where rows of videos lie elsewhere in a merged file than the manifest says."""
    said = sum(stop - start for start, stop in bounds)
    if found != said:
        raise CorruptArchive(
            f"videos must lie in a merged file in the order of its snapshot's manifest; in one of {state.archive} "
            f"{found} rows of {said} lie where it says: nothing is lost, avs compact writes it again"
        )


def _among(video_ids: Iterable[str]) -> pc.Expression:
    return pc.field("video_id").isin(pa.array(sorted(video_ids), pa.string()))


def _groups(bounds: Iterable[tuple[int, int]]) -> list[int]:
    """The row groups in which rows [start, stop) lie, for each pair of bounds."""
    return sorted({number for a, b in bounds for number in range(a // ROW_GROUP, -(-b // ROW_GROUP))})


def _fragments(archive: str) -> Callable[[FileRecord], ds.ParquetFileFragment]:
    """What makes a file part of a data set; its size is known, so that opening it asks the store nothing."""
    filesystem, root = storage.arrow_filesystem(archive)
    layout = ds.ParquetFileFormat()
    return lambda file: layout.make_fragment(f"{root}/{file.path}", filesystem=filesystem, file_size=file.bytes)


def _without(state: RunState, index: int, kind: str) -> tuple[list[ds.ParquetFileFragment], pa.Table]:
    """A merged file without its dropped videos: the row groups that hold none of them, and the rows of the others."""
    record: FileRecord = getattr(state.files[index], kind)
    bounds = [getattr(span, kind) for span in state.spans(state.dropped).values() if span.file == index]
    touched = _groups(bounds)
    clean = sorted({*range(-(-record.rows // ROW_GROUP))} - {*touched})
    with storage.open_read(storage.join(state.archive, record.path)) as file:
        table = pq.ParquetFile(file).read_row_groups(touched)
    gone = pc.is_in(table["video_id"], pa.array(sorted(state.dropped), pa.string()))
    _check_places(state, pc.sum(gone).as_py() or 0, bounds)
    fragment = _fragments(state.archive)(record)
    return [fragment.subset(row_group_ids=clean)] if clean else [], table.filter(pc.invert(gone))
