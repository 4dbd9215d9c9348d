"""Which version of a video a file counts as that was put back.

Readers are shown the version that was modified last. An older copy that replaces a newer file, or the very file of
before, would never be shown: the one is older than what readers see, the other is done already. Such a file counts as
a version of its own, which is newer than all that the run holds.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

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
from avs_core.archive.state import read_records
from avs_core.clip import VideoRef

AGAIN = "@"
"""Between the fingerprint of a file and the time (µs) at which it was put back; in no fingerprint of a store."""


def as_versions(uri: str, run_key: str, videos: Sequence[VideoRef], ledger: Ledger | None = None) -> Sequence[VideoRef]:
    """Each video as the version that a run has to hold for readers to see what is there now; most are as they were.

    Opened are the commits of each version of those videos of which the run holds another than theirs. `ledger` is the
    run's, if it was loaded already.
    """
    archive = storage.normalise(uri)
    ledger = ledger or load_ledger(archive, run_key)
    if not ledger.committed:
        return videos
    keys = video_keys(ledger)
    settled = keys.done | keys.dead
    by_video = groupby(sorted(settled), lambda key: key[:VIDEO_ID])
    several = {video_id for video_id, versions in by_video if len([*versions]) > 1}
    asked = {video.video_id for video in videos if video.video_id in several or video.video_key not in settled}
    newest = newest_commits(archive, run_key, ledger, asked)
    run = _Run(archive, run_key, ledger, keys)
    return [run.as_version(video, newest[video.video_id]) if video.video_id in newest else video for video in videos]


def fingerprint_of_file(fingerprint: str) -> str:
    """What a listing says of the file, without the times at which it was put back."""
    return fingerprint.partition(AGAIN)[0]


def newest_commits(archive: str, run_key: str, ledger: Ledger, video_ids: Collection[str]) -> dict[str, CommitInfo]:
    """Of these videos, the latest commit of the version that readers are shown; none where nothing is settled."""
    if not video_ids:
        return {}
    keys = video_keys(ledger)
    units = [
        unit_id
        for unit_id in ledger.committed
        if unit_id[:VIDEO_ID] in video_ids and keys.settled(unit_id.partition("-")[0])
    ]
    versions: dict[str, list[CommitInfo]] = defaultdict(list)
    for commit in read_records(archive, commits_folder(run_key), CommitInfo, units):
        versions[commit.video.video_id].append(commit)
    return {video_id: max(commits, key=lambda commit: order_of(commit.video)) for video_id, commits in versions.items()}


@dataclass(frozen=True)
class _Run:
    archive: str
    run_key: str
    ledger: Ledger
    keys: VideoKeys

    def as_version(self, video: VideoRef, newest: CommitInfo) -> VideoRef:
        """The video, or as often put back as it takes to be what readers see, or newer than that and not done yet."""
        shown, now = newest.video, video
        while not self._is(now, newest) and (now.video_key in self.keys.done or order_of(now) < order_of(shown)):
            fingerprint = f"{now.fingerprint}{AGAIN}{video.modified_us}"
            modified_us = max(video.modified_us, shown.modified_us + 1)
            now = replace(now, fingerprint=fingerprint, modified_us=modified_us)
        return now

    def _is(self, video: VideoRef, newest: CommitInfo) -> bool:
        """Whether the video has these masks: they are its own, or it was touched."""
        if video.fingerprint == newest.video.fingerprint:
            return True
        if video.video_key not in self.ledger.touched:
            return False
        uri = storage.join(self.archive, unit_path(touched_folder(self.run_key), video.video_key))
        touch = find_record(TouchRecord, uri)
        return touch is not None and touch.as_key == newest.unit_id.partition("-")[0]


def order_of(video: VideoRef | VideoRecord) -> tuple[int, str]:
    """What orders versions, as readers do."""
    return video.modified_us, video.fingerprint
