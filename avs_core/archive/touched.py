"""A file that was written again with the content it had: its masks stand, nothing of it is done again.

A fingerprint changes when a file is written; whether its content did is told by the hash that the earlier version's
commits hold. Compared is the newest version of which the run holds masks, because that is what readers see.

<archive>/_touched/run=<run_key>/<key of the version that is there now>.json
"""

import hashlib
import io
import re
from collections.abc import Iterable

from avs_core import storage
from avs_core.archive.commit import settle
from avs_core.archive.layout import CommitInfo, TouchRecord, VideoRecord, touched_folder, unit_path
from avs_core.archive.ledger import Ledger, dead_keys
from avs_core.archive.schema import canonical_json
from avs_core.archive.versions import newest_commits
from avs_core.clip import VideoRef, video_key_of

CHUNK = 4 * 2**20
_MD5_ETAG = re.compile(r"[0-9a-f]{32}-\d+")


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

    Left out are those that can't be: of another size, with an earlier version that nobody hashed, or with none; and
    those of which a part is dead or its letter in doubt, since what was touched is done and nobody would look at the
    part again.
    """
    partly_dead = dead_keys(ledger)
    by_id = {video.video_id: video for video in videos}
    newest = newest_commits(archive, run_key, ledger, by_id.keys())
    return {
        commit.video.uri: TouchRecord(video=_as_now(by_id[video_id], commit), as_key=video_key_of(commit.unit_id))
        for video_id, commit in newest.items()
        if commit.video.content
        and commit.video.size == by_id[video_id].size
        and video_key_of(commit.unit_id) not in partly_dead
    }


def record_touch(archive: str, run_key: str, video: VideoRef, touch: TouchRecord) -> None:
    """Write down that the video was touched: from now on it is done. Doing it again changes nothing."""
    uri = storage.join(archive, unit_path(touched_folder(run_key), video.video_key))
    settle(uri, canonical_json(touch.model_dump(mode="json")))


def _as_now(video: VideoRef, commit: CommitInfo) -> VideoRecord:
    return VideoRecord.of(video).model_copy(update={"content": commit.video.content})
