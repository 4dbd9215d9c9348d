"""Compaction: the unit files of complete videos become merged files, and a snapshot says so.

Only what is small or wrong is written again: unit files that no snapshot covers, merged files below half the target
(two of them at least, or one with something to join it), and merged files that hold a video which was replaced or
has grown, or whose videos do not lie in the order of the manifest. Nothing is removed: that is for `gc`. Running it
again, after a crash at any point or twice at once, ends in the same files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, product

import pyarrow as pa
import pyarrow.compute as pc

from avs_core import storage
from avs_core.archive.layout import CommitInfo, commits_folder, unit_ids
from avs_core.archive.merge import VideoParts, by_video, lies_as_said, read_videos, write_merged
from avs_core.archive.read import resolve_run
from avs_core.archive.snapshots import MANIFEST_SCHEMA, NO_FILE, MergedFile, manifest_rows, open_snapshot, publish
from avs_core.archive.state import RunState, covered_units, load_state
from avs_core.clip import video_key_of
from avs_core.errors import CommitConflict, ConfigError

TARGET_BYTES = 256_000_000
ATTEMPTS = 5
UNITS_A_ROUND = 100_000


@dataclass(frozen=True)
class Compaction:
    """What a compaction did: `snapshot` is the newest now (0: none), `units` were taken up, files read and written."""

    archive: str
    run_key: str
    snapshot: int
    units: int
    files_read: int
    files_written: int
    bytes_written: int


@dataclass(frozen=True)
class _Plan:
    """Merged files (by index) that stay and that are written again; the videos to merge in packages.

    Each package is sorted by URI: in this order a manifest tells where in a file the rows of a video are.
    """

    kept: list[int]
    rewritten: list[int]
    packages: list[list[VideoParts]]


def compact(uri: str, run: str | None = None, target_bytes: int = TARGET_BYTES) -> Compaction:
    """Merge what is small into files of `target_bytes` (rows and frames of a file together) and publish a snapshot.

    Memory: what `merge` says, the commits of `UNITS_A_ROUND` units and a name for each unit; more units than that are
    taken up in rounds, with a snapshot each. Raises `CommitConflict` when other compactors win each
    time, `CorruptArchive` for a file that is not what was committed.
    """
    if target_bytes < 1:
        raise ConfigError(f"a merged file needs a size of at least 1 byte, got target_bytes={target_bytes}")
    archive = storage.normalise(uri)
    key = resolve_run(archive, run)
    rounds = [_round(archive, key, units, target_bytes) for units in _portions(archive, key)]
    return Compaction(
        archive=archive,
        run_key=key,
        snapshot=rounds[-1].snapshot,
        units=sum(done.units for done in rounds),
        files_read=sum(done.files_read for done in rounds),
        files_written=sum(done.files_written for done in rounds),
        bytes_written=sum(done.bytes_written for done in rounds),
    )


def _portions(archive: str, run_key: str) -> list[list[str]]:
    """The units that no snapshot covers, `UNITS_A_ROUND` at a time and those of one version together; then none.

    The last round joins what the others left small, so that the next compaction has nothing to do.
    """
    names = unit_ids(archive, commits_folder(run_key)) - covered_units(open_snapshot(archive, run_key))
    portions: list[list[str]] = [[]]
    for _, version in groupby(sorted(names), video_key_of):
        if len(portions[-1]) >= UNITS_A_ROUND:
            portions.append([])
        portions[-1].extend(version)
    return [*portions, []] if names else portions


def _round(archive: str, run_key: str, units: list[str], target: int) -> Compaction:
    """Take up these units; again when another compactor has made the snapshot meanwhile."""
    for _ in range(ATTEMPTS):
        state = load_state(archive, run_key, units=units)
        plan = _plan(state, target)
        if not plan.packages and not plan.rewritten and not state.settled.replaced:
            return Compaction(archive, run_key, _number(state), 0, 0, 0, 0)
        done = _carry_out(state, plan, target)
        if done is not None:
            return done
    raise CommitConflict(f"a snapshot is made by one compactor; {ATTEMPTS} times another one was faster in {archive}")


def _plan(state: RunState, target: int) -> _Plan:
    """What is written again, and together with what."""
    spans = state.spans(state.dropped | state.grown)
    wrong = {span.file for span in spans.values()} | _out_of_order(state)
    small = {index for index, file in enumerate(state.files) if file.bytes < target // 2}
    fresh = [commit for commit in state.settled.shown if commit.video.video_id not in state.grown]
    if len(small - wrong) == 1 and not fresh and not (small & wrong):
        small = set()
    rewritten = sorted(wrong | small)
    pool = by_video(fresh, {})
    packages: list[list[VideoParts]] = []
    for index in rewritten:
        videos = list(_videos_of(state, index))
        if index in small:
            pool.extend(videos)
        else:
            packages.append(videos)
    packages.append(pool)
    kept = [index for index in range(len(state.files)) if index not in rewritten]
    return _Plan(kept, rewritten, [sorted(videos, key=lambda video: video.uri) for videos in packages if videos])


def _out_of_order(state: RunState) -> set[int]:
    """The merged files in which videos lie elsewhere than the manifest says, of those that are not known not to."""
    asked = [index for index, file in enumerate(state.files) if not file.in_order]
    spans = {index: state.spans(state.units_of(index)["video_id"].to_pylist()) for index in asked}
    return {
        index
        for index, kind in product(asked, ("data", "frames"))
        if not lies_as_said(
            state.archive,
            getattr(state.files[index], kind),
            {video_id: getattr(span, kind) for video_id, span in spans[index].items()},
        )
    }


def _videos_of(state: RunState, index: int) -> Iterator[VideoParts]:
    """The videos of a merged file that still count, each with the commits that have come to it."""
    rows = state.units_of(index)
    names = dict(zip(rows["video_id"].to_pylist(), rows["video_uri"].to_pylist(), strict=True))
    joined: dict[str, list[CommitInfo]] = {}
    for commit in state.settled.shown:
        if commit.video.video_id in state.grown:
            joined.setdefault(commit.video.video_id, []).append(commit)
    for video_id, span in state.spans(names).items():
        if video_id not in state.dropped:
            yield VideoParts(names[video_id], video_id, span, tuple(joined.get(video_id, ())))


def _carry_out(state: RunState, plan: _Plan, target: int) -> Compaction | None:
    """Write the files, then the snapshot; None when another one has come first."""
    files = [state.files[index].model_copy(update={"in_order": True}) for index in plan.kept]  # it was looked at
    written: list[MergedFile] = []
    place: dict[str, int] = {}
    for package in plan.packages:
        tables = read_videos(state.archive, state.files, package)
        for merged, videos in write_merged(state.archive, state.run_key, tables, target):
            place.update((video.video_id, len(files) + len(written)) for video in videos)
            written.append(merged)
    manifest = _manifest(state, plan, place)
    number = _number(state)
    if not publish(state.archive, state.run_key, number, (*files, *written), manifest):
        return None
    units = len(state.settled.shown) + len(state.settled.replaced)
    return Compaction(
        archive=state.archive,
        run_key=state.run_key,
        snapshot=number + 1,
        units=units,
        files_read=len(plan.rewritten) + len(state.settled.shown),
        files_written=len(written),
        bytes_written=sum(file.bytes for file in written),
    )


def _manifest(state: RunState, plan: _Plan, place: dict[str, int]) -> pa.Table:
    """What was covered and what is now, with the new numbers of the files."""
    shown = manifest_rows(state.settled.shown)
    tables = [_placed(shown, place), manifest_rows(state.settled.replaced)]
    if state.opened is not None:
        old = state.opened.manifest
        again = pc.is_in(old["file"], pa.array(plan.rewritten, pa.int32()))
        gone = pc.and_(again, pc.is_in(old["video_id"], pa.array(sorted(state.dropped), pa.string())))
        tables.append(_renumbered(old.filter(pc.invert(again)), plan.kept))
        tables.append(_placed(old.filter(pc.and_(again, pc.invert(gone))), place))
        tables.append(_renumbered(old.filter(gone), []))
    order = [(name, "ascending") for name in ("file", "video_uri", "start_s", "unit_id")]
    return pa.concat_tables(tables).sort_by(order)


def _placed(rows: pa.Table, place: dict[str, int]) -> pa.Table:
    return _with_file(rows, pa.array([place[video_id] for video_id in rows["video_id"].to_pylist()], pa.int32()))


def _renumbered(rows: pa.Table, kept: list[int]) -> pa.Table:
    """The rows with the new numbers of the files that stay, in this order; NO_FILE for others."""
    return _with_file(rows, pc.fill_null(pc.index_in(rows["file"], pa.array(kept, pa.int32())), NO_FILE))


def _with_file(rows: pa.Table, numbers: pa.Array | pa.ChunkedArray) -> pa.Table:
    index = MANIFEST_SCHEMA.get_field_index("file")
    return rows.set_column(index, MANIFEST_SCHEMA.field(index), numbers)


def _number(state: RunState) -> int:
    return state.opened.snapshot.number if state.opened else 0
