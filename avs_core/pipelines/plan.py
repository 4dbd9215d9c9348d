"""What is left to do: the videos that were found, against what the archive holds, from names alone.

Nothing is opened but one commit of each video that is known in another version, so that a rerun over a finished
archive costs two listings.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import pyarrow as pa
import pyarrow.parquet as pq

from avs_core import storage
from avs_core.archive.layout import RUNS, CommitInfo, commits_folder, unit_ids
from avs_core.archive.ledger import VIDEO_ID, Ledger, load_ledger, shares_left, video_ids, video_keys
from avs_core.archive.state import READERS, read_records
from avs_core.archive.touched import content_hash, earlier_versions
from avs_core.archive.versions import as_versions
from avs_core.clip import VideoRef
from avs_core.errors import StorageError
from avs_core.media.versions import decoder_versions
from avs_core.pipelines.coverage import still_there

PLAN_SCHEMA = pa.schema(
    [
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("modified_us", pa.int64(), nullable=False),
    ]
)
"""What `avs plan --out` writes: a row for each video, sorted by URI; a manifest that `avs segment` takes."""


class State(StrEnum):
    """How a video stands in a run."""

    NEW = "new"  # no run knows it
    CHANGED = "changed"  # known in another version
    TOUCHED = "touched"  # written again with the content it had: its masks stand
    STALE = "stale model"  # known in this version to another run alone: other weights, thresholds or settings
    IN_PROGRESS = "in progress"  # some of its units are done, or its dead letter is in doubt
    DONE = "done"
    DEAD = "dead"  # settled, and a part of it could not be done
    DELETED = "deleted"  # in the archive, not among the inputs, and not in the store any more

    @property
    def to_do(self) -> bool:
        """Whether a job has work with it."""
        return self in (State.NEW, State.CHANGED, State.TOUCHED, State.STALE, State.IN_PROGRESS)


@dataclass(frozen=True)
class Plan:
    """The videos that were found, sorted by URI, and the state of each.

    `left` is, by URI, the share of a video's seconds that is not done, of those in progress; about, since of a video's
    units the last is shorter.
    """

    videos: Sequence[VideoRef]
    states: Sequence[State]
    left: Mapping[str, float] = field(default_factory=dict)

    @property
    def pending(self) -> list[VideoRef]:
        """The videos with which a job has work."""
        return self.of(*(state for state in State if state.to_do))

    @property
    def settled(self) -> int:
        """How many of the videos need nothing."""
        return len(self.videos) - len(self.pending)

    @property
    def counts(self) -> dict[State, int]:
        """How many videos are in each state, in the order of the states; none left out."""
        counted = Counter(self.states)
        return {state: counted[state] for state in State}

    def of(self, *states: State) -> list[VideoRef]:
        """The videos in these states."""
        return [video for video, state in zip(self.videos, self.states, strict=True) if state in states]

    @property
    def sizes(self) -> dict[State, int]:
        """Bytes of the videos in each state."""
        sizes = dict.fromkeys(State, 0)
        for video, state in zip(self.videos, self.states, strict=True):
            sizes[state] += video.size
        return sizes

    def write(self, uri: str) -> None:
        """Write `to_table` as Parquet, to disk or S3."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.to_table(), sink, compression="zstd")
        storage.write_bytes(uri, bytes(sink.getvalue()))

    def to_table(self) -> pa.Table:
        """The plan as a table of `PLAN_SCHEMA`."""
        columns = {
            "video_uri": [video.uri for video in self.videos],
            "video_id": [video.video_id for video in self.videos],
            "state": [str(state) for state in self.states],
            "size": [video.size for video in self.videos],
            "fingerprint": [video.fingerprint for video in self.videos],
            "modified_us": [video.modified_us for video in self.videos],
        }
        return pa.table(columns, schema=PLAN_SCHEMA)


def make_plan(videos: Sequence[VideoRef], uri: str, run_key: str, ledger: Ledger | None = None) -> Plan:
    """How each video stands in a run of the archive at `uri`, which need not exist yet.

    From listings alone: what may have been touched is CHANGED (see `compare_content`), and nothing is DELETED (see
    `with_deleted`). `ledger` is the run's, if it was loaded already.
    """
    archive = storage.normalise(uri)
    ledger = ledger or load_ledger(archive, run_key, decoder_versions())
    here = video_keys(ledger)
    ids_here = video_ids([*here.done, *here.dead, *here.begun])
    elsewhere: set[str] = set()
    ids_elsewhere: set[str] = set()
    for other in sorted(unit_ids(archive, RUNS) - {run_key}):
        keys = video_keys(load_ledger(archive, other))
        known = keys.done | keys.dead | keys.begun
        elsewhere |= known
        ids_elsewhere |= video_ids(known)

    def state(video: VideoRef) -> State:
        key = video.video_key
        if key in here.dead:
            return State.DEAD
        if key in here.done:
            return State.DONE
        if key in here.begun:
            return State.IN_PROGRESS
        if video.video_id in ids_here:
            return State.CHANGED
        if key in elsewhere:
            return State.STALE
        return State.CHANGED if video.video_id in ids_elsewhere else State.NEW

    states, left = [state(video) for video in videos], shares_left(ledger, here.begun)
    begun = (video for video, found in zip(videos, states, strict=True) if found == State.IN_PROGRESS)
    return Plan(videos, states, {video.uri: left[video.video_key] for video in begun if video.video_key in left})


def plan_found(videos: Sequence[VideoRef], uri: str, run_key: str) -> Plan:
    """The plan of videos as they were found; those that were put back count as versions of their own."""
    ledger = load_ledger(uri, run_key, decoder_versions())
    # What readers see is settled by letters too that are in doubt, as long as nobody has looked again.
    shown = replace(ledger, dead=ledger.dead | ledger.doubtful, doubtful=frozenset())
    return make_plan(as_versions(uri, run_key, videos, shown), uri, run_key, ledger)


def compare_content(plan: Plan, uri: str, run_key: str) -> Plan:
    """The plan in which those of the CHANGED videos are TOUCHED whose content is what it was; it reads these files.

    A file that can't be read stays CHANGED: the job will say what is wrong with it.
    """
    archive = storage.normalise(uri)
    changed = plan.of(State.CHANGED)
    earlier = earlier_versions(archive, run_key, load_ledger(archive, run_key), changed) if changed else {}

    def same(video: VideoRef) -> bool:
        try:
            return content_hash(video) == earlier[video.uri].video.content
        except StorageError:
            return False

    candidates = [video for video in changed if video.uri in earlier]
    answers = zip(candidates, storage.in_threads(same, candidates, READERS), strict=True)
    touched = {video.uri for video, is_same in answers if is_same}
    pairs = zip(plan.videos, plan.states, strict=True)
    return replace(plan, states=[State.TOUCHED if video.uri in touched else state for video, state in pairs])


def with_deleted(plan: Plan, uri: str) -> Plan:
    """The plan and those videos of the archive that it does not name and that are not in their store any more."""
    archive = storage.normalise(uri)
    named = {video.video_id for video in plan.videos}
    gone: dict[str, VideoRef] = {}
    for run_key in sorted(unit_ids(archive, RUNS)):
        units = {unit_id[:VIDEO_ID]: unit_id for unit_id in sorted(load_ledger(archive, run_key).committed)}
        names = [unit_id for video_id, unit_id in units.items() if video_id not in named]
        for commit in read_records(archive, commits_folder(run_key), CommitInfo, names):
            video = commit.video
            gone[video.uri] = VideoRef(video.uri, video.size, video.fingerprint, video.modified_us)
    there = dict(zip(gone, still_there(gone), strict=True))
    rows = [*zip(plan.videos, plan.states, strict=True)]
    rows += [(video, State.DELETED) for uri_, video in gone.items() if not there[uri_]]
    rows.sort(key=lambda row: row[0].uri)
    return Plan([video for video, _ in rows], [state for _, state in rows], plan.left)
