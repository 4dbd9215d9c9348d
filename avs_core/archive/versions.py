"""Which version of a video a file counts as that was put back.

Readers are shown the version that was modified last. An older copy that replaces a newer file, or the very file of
before, would never be shown: the one is older than what readers see, the other is done already. Such a file counts as
a version of its own, which is newer than all that the run holds.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from avs_core import storage
from avs_core.archive.layout import (
    CommitInfo,
    TouchRecord,
    VideoRecord,
    commits_folder,
    find_record,
    touched_folder,
    unit_path,
)
from avs_core.archive.ledger import VIDEO_ID, Ledger, VideoKeys, load_ledger, video_keys
from avs_core.archive.snapshots import NO_FILE
from avs_core.archive.state import READERS, load_state, read_records
from avs_core.clip import MISSING_FINGERPRINT, VideoRef, video_key_of

AGAIN = "@"
"""Between the fingerprint of a file and the time (µs) at which it was put back; in no fingerprint of a store."""


def as_versions(uri: str, run_key: str, videos: Sequence[VideoRef], ledger: Ledger | None = None) -> Sequence[VideoRef]:
    """Each video as the version that a run has to hold for readers to see what is there now; most are as they were.

    Opened are, of those videos of which the run holds another version than theirs, the commits that no snapshot covers,
    and one each. `ledger` is the run's, if it was loaded already.
    """
    archive = storage.normalise(uri)
    ledger = ledger or load_ledger(archive, run_key)
    if not ledger.committed:
        return videos
    keys = video_keys(ledger)
    settled = keys.done | keys.dead
    by_video = groupby(sorted(settled | keys.begun), lambda key: key[:VIDEO_ID])
    several = {video_id for video_id, versions in by_video if len([*versions]) > 1}
    asked = {video.video_id for video in videos if video.video_id in several or video.video_key not in settled}
    shown = _shown(archive, run_key, ledger, asked) if asked else _Shown({}, frozenset())
    touched = [key for video in videos if video.video_id in shown.newest and (key := video.video_key) in ledger.touched]
    run = _Run(archive, run_key, ledger, keys, shown.left_out, _touches(archive, run_key, touched))
    return [
        run.as_version(video, shown.newest[video.video_id])
        if video.video_id in shown.newest and video.fingerprint != MISSING_FINGERPRINT
        else video
        for video in videos
    ]


def fingerprint_of_file(fingerprint: str) -> str:
    """What a listing says of the file, without the times at which it was put back."""
    return fingerprint.partition(AGAIN)[0]


def newest_commits(archive: str, run_key: str, ledger: Ledger, video_ids: Collection[str]) -> dict[str, CommitInfo]:
    """Of these videos, the latest commit of the version that readers are shown; none where nothing is settled."""
    if not video_ids:
        return {}
    return _shown(archive, run_key, ledger, video_ids).newest


@dataclass(frozen=True)
class _Shown:
    """Of each video the latest commit of the version that readers see; keys of which a snapshot has left units out.

    Who left them out knew a newer version: readers do not get these units again, whatever comes to them.
    """

    newest: dict[str, CommitInfo]
    left_out: frozenset[str]


def _shown(archive: str, run_key: str, ledger: Ledger, video_ids: Collection[str]) -> _Shown:
    """As the readers' own reckoning has it (`load_state`). Opened are commits that no snapshot covers, and one each."""
    keys = video_keys(ledger)
    state = load_state(archive, run_key, units=[name for name in ledger.committed if name[:VIDEO_ID] in video_ids])
    pending = [commit for commit in state.pending if keys.settled(video_key_of(commit.unit_id))]
    units = [(commit.video.modified_us, commit.unit_id) for commit in pending]
    left_out: set[str] = set()
    if state.opened is not None:
        manifest = state.opened.manifest
        rows = manifest.filter(pc.is_in(manifest["video_id"], pa.array(sorted(video_ids), pa.string())))
        for row in rows.select(["unit_id", "video_id", "modified_us", "file"]).to_pylist():
            if row["file"] == NO_FILE:
                left_out.add(video_key_of(row["unit_id"]))
            elif row["video_id"] not in state.dropped:
                units.append((row["modified_us"], row["unit_id"]))
    latest = {unit_id[:VIDEO_ID]: unit_id for _, unit_id in sorted(units)}
    found = read_records(archive, commits_folder(run_key), CommitInfo, latest.values())
    return _Shown({commit.video.video_id: commit for commit in found}, frozenset(left_out))


@dataclass(frozen=True)
class _Run:
    archive: str
    run_key: str
    ledger: Ledger
    keys: VideoKeys
    left_out: frozenset[str]
    as_keys: dict[str, str]

    def as_version(self, video: VideoRef, newest: CommitInfo) -> VideoRef:
        """The video, or as often put back as it takes to be what readers see, or newer than that and not done yet."""
        shown, now = newest.video, video
        while not self._is(now, newest) and (self._is_over(now) or order_of(now) < order_of(shown)):
            fingerprint = f"{now.fingerprint}{AGAIN}{video.modified_us}"
            modified_us = max(video.modified_us, shown.modified_us + 1)
            now = replace(now, fingerprint=fingerprint, modified_us=modified_us)
        return now

    def _is_over(self, video: VideoRef) -> bool:
        """Whether the run has done with this version: nothing that comes to it is shown."""
        return video.video_key in self.keys.done or video.video_key in self.left_out

    def _is(self, video: VideoRef, newest: CommitInfo) -> bool:
        """Whether the video has these masks: they are its own, or it was touched."""
        if video.fingerprint == newest.video.fingerprint:
            return True
        key = video.video_key
        if key in self.ledger.touched and key not in self.as_keys:  # one that was put back
            self.as_keys.update(_touches(self.archive, self.run_key, [key]))
        return self.as_keys.get(key) == video_key_of(newest.unit_id)


def _touches(archive: str, run_key: str, keys: Sequence[str]) -> dict[str, str]:
    """By the keys of touched versions, those whose masks they have; side by side, a record each."""
    uris = (storage.join(archive, unit_path(touched_folder(run_key), key)) for key in keys)
    records = storage.in_threads(lambda uri: find_record(TouchRecord, uri), uris, READERS)
    return {key: touch.as_key for key, touch in zip(keys, records, strict=True) if touch is not None}


def order_of(video: VideoRef | VideoRecord) -> tuple[int, str]:
    """What orders versions, as readers do."""
    return video.modified_us, video.fingerprint
