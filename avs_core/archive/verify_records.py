"""Do the small records of an archive say what their names say? Bits flip in them too, and no hash covers them."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import pairwise

from avs_core import storage
from avs_core.archive.current import Choice
from avs_core.archive.layout import (
    CURRENT,
    CommitInfo,
    DeadLetter,
    Record,
    TouchRecord,
    VideoRecord,
    dead_folder,
    parse,
    touched_folder,
    unit_ids,
    unit_path,
)
from avs_core.archive.ledger import VIDEO_ID
from avs_core.archive.state import READERS
from avs_core.clip import Unit, VideoRef, video_key_of
from avs_core.errors import ConfigError, CorruptArchive, NotFound

_ON_S3 = re.compile(r".+-(\d+)")
_ON_DISK = re.compile(r"(\d+)-(\d+)")
"""Fingerprints: etag and size; size and time of modification in ns."""


def meeting_problems(commits: Iterable[CommitInfo]) -> Iterator[str]:
    """Units of one cut of a video, sorted by id, that overlap or leave a gap though each follows on the other."""
    for one, following in pairwise(commits):
        cuts = {(video_key_of(commit.unit_id), commit.of) for commit in (one, following)}
        if len(cuts) == 1 and following.index == one.index + 1 and one.stop_s != following.start_s:
            yield f"unit {one.unit_id}: it ends at {one.stop_s} s, the next begins at {following.start_s} s"


def unit_problems(record: CommitInfo | DeadLetter, unit_id: str) -> Iterator[str]:
    """What a commit or dead letter says of its unit, against the id in the name of its file."""
    if record.unit_id != unit_id:
        yield f"its record says {record.unit_id}"
        return
    try:
        told = Unit(_ref(record.video), record.start_s, record.stop_s, record.index, record.of).unit_id
    except ConfigError as error:
        yield str(error)
        return
    if told != unit_id:
        yield f"its record is of unit {told}: its URI, fingerprint, index or number of units was another"
    else:
        yield from _video_problems(record.video)


def check_letters(archive: str, run_key: str, names: Iterable[str]) -> Iterator[str]:
    """The dead letters of these units."""
    found = _problems(archive, dead_folder(run_key), names, DeadLetter, unit_problems)
    yield from (f"dead letter {problem}" for problem in found)


def check_touched(archive: str, run_key: str) -> Iterator[str]:
    """What is written down of files that were touched and not changed."""
    folder = touched_folder(run_key)
    found = _problems(archive, folder, unit_ids(archive, folder), TouchRecord, _touch_problems)
    yield from (f"touched video {problem}" for problem in found)


def check_choices(archive: str, known: Collection[str]) -> Iterator[str]:
    """Which runs were made current, and whether the one that is, is among those that are `known`."""
    names = unit_ids(archive, CURRENT)

    def look(choice: Choice, name: str) -> Iterator[str]:
        if not name.isdecimal() or choice.number != int(name):
            yield f"its record has the number {choice.number}"
        if name == max(names) and choice.run_key not in known:
            yield f"readers get run {choice.run_key}, which is not there"

    yield from (f"choice {problem}" for problem in _problems(archive, CURRENT, names, Choice, look))


def _problems(
    archive: str,
    folder: str,
    names: Iterable[str],
    kind: type[Record],
    check: Callable[[Record, str], Iterator[str]],
) -> Iterator[str]:
    """What is wrong with each of a folder's records; one that has gone since the listing is no problem."""

    def look(name: str) -> list[str]:
        uri = storage.join(archive, unit_path(folder, name))
        try:
            return [f"{name}: {problem}" for problem in check(parse(kind, storage.read_bytes(uri), uri), name)]
        except CorruptArchive as error:
            return [f"{name}: {error}"]
        except NotFound:
            return []

    for found in storage.in_threads(look, sorted(names), READERS):
        yield from found


def _touch_problems(touch: TouchRecord, name: str) -> Iterator[str]:
    video = _ref(touch.video)
    if video.video_key != name:
        yield f"its record is of video {video.video_key}"
    elif touch.as_key[:VIDEO_ID] != video.video_id:
        yield f"it has the masks of another video, {touch.as_key}"
    yield from _video_problems(touch.video)


def _video_problems(video: VideoRecord) -> Iterator[str]:
    """What contradicts the URI or the fingerprint, where that is one of ours."""
    if video.video_id != _ref(video).video_id:
        yield f"its video_id is not that of {video.uri}: {video.video_id}"
    on_s3 = video.uri.startswith("s3://")
    listed = (_ON_S3 if on_s3 else _ON_DISK).fullmatch(video.fingerprint)
    if listed is None:
        return
    if int(listed[1]) != video.size:
        yield f"{video.size} bytes, its fingerprint says {listed[1]}"
    if not on_s3 and int(listed[2]) // 1000 != video.modified_us:
        yield f"modified at {video.modified_us} µs, its fingerprint says {listed[2]} ns"


def _ref(video: VideoRecord) -> VideoRef:
    return VideoRef(video.uri, video.size, video.fingerprint, video.modified_us)
