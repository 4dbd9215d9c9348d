"""A file that was written again with the content it had: its masks stand, nothing of it is done again.

A fingerprint changes when a file is written; whether its content did is told by the hash that the earlier version's
commits hold. Compared is the newest version of which the run holds masks, because that is what readers see.

<archive>/_touched/run=<run_key>/<key of the version that is there now>.json
"""

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterable

from avs_core import storage
from avs_core.archive.commit import settle
from avs_core.archive.layout import CommitInfo, StoredRecord, VideoRecord, commits_folder, touched_folder, unit_path
from avs_core.archive.ledger import VIDEO_ID, Ledger, video_keys
from avs_core.archive.schema import canonical_json
from avs_core.archive.state import read_records
from avs_core.clip import VideoRef

CHUNK = 4 * 2**20
_MD5_ETAG = re.compile(r"[0-9a-f]{32}-\d+")


class TouchRecord(StoredRecord):
    """The version that is there now, and the key of the one whose masks stand for it."""

    video: VideoRecord
    as_key: str


def content_hash(video: VideoRef) -> str:
    """SHA-256 of the file, "" where its fingerprint is a hash of its content already. Raises as `open_read`.

    The etag of an object that was uploaded in one part is its MD5, unless a key of KMS encrypts it, which only a look
    at the object tells; that of several parts depends on how it was cut.
    """
    if _MD5_ETAG.fullmatch(video.fingerprint) and not storage.encrypted_by_key(video.uri):
        return ""
    with storage.open_read(video.uri) as file:
        return _sha256(file)


def _sha256(file: io.BufferedReader) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def earlier_versions(archive: str, run_key: str, ledger: Ledger, videos: Iterable[VideoRef]) -> dict[str, TouchRecord]:
    """By URI, what would have to be written down if the video turns out to be as it was.

    Left out are those that can't be: of another size, with an earlier version that nobody hashed, or with none.
    """
    by_id = {video.video_id: video for video in videos}
    keys = video_keys(ledger)
    units: dict[str, str] = {}
    for unit_id in ledger.committed:
        key = unit_id.partition("-")[0]
        if key[:VIDEO_ID] in by_id and keys.settled(key):
            units[key] = min(unit_id, units.get(key, unit_id))
    versions: dict[str, list[CommitInfo]] = defaultdict(list)
    for commit in read_records(archive, commits_folder(run_key), CommitInfo, units.values()):
        versions[commit.video.video_id].append(commit)
    newest = (max(commits, key=_version) for commits in versions.values())
    return {
        commit.video.uri: TouchRecord(video=_as_now(by_id[commit.video.video_id], commit), as_key=_key(commit))
        for commit in newest
        if commit.video.content and commit.video.size == by_id[commit.video.video_id].size
    }


def record_touch(archive: str, run_key: str, video: VideoRef, touch: TouchRecord) -> None:
    """Write down that the video was touched: from now on it is done. Doing it again changes nothing."""
    uri = storage.join(archive, unit_path(touched_folder(run_key), video.video_key))
    settle(uri, canonical_json(touch.model_dump(mode="json")))


def _version(commit: CommitInfo) -> tuple[int, str]:
    """What orders versions, as readers do."""
    return commit.video.modified_us, commit.video.fingerprint


def _as_now(video: VideoRef, commit: CommitInfo) -> VideoRecord:
    return VideoRecord.of(video).model_copy(update={"content": commit.video.content})


def _key(commit: CommitInfo) -> str:
    return commit.unit_id.partition("-")[0]
