"""How much of what readers have a run holds: whether it may become the one that they get."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from avs_core import storage
from avs_core.archive.current import current
from avs_core.archive.layout import CommitInfo, commits_folder
from avs_core.archive.ledger import VIDEO_ID, load_ledger, video_ids, video_keys
from avs_core.archive.state import READERS, read_records
from avs_core.clip import VideoRef
from avs_core.errors import StorageError

_AT_ONCE = 1000
"""Videos that are asked for before it is looked whether enough of them are still there to stop."""


@dataclass(frozen=True)
class Coverage:
    """How much of the videos a run holds, and what readers would miss.

    share    of the videos that are done, or dead in the current run too: of those that the job was given, and of those
             that readers have now
    lost     of the videos that readers have now and that are dead in the new run
    missing  of the videos that readers have now and that neither the job was given nor the new run holds
    """

    share: float
    lost: int
    missing: int = 0


def coverage(archive: str, run_key: str, videos: Sequence[VideoRef], enough: float = 1.0) -> Coverage:
    """How much of `videos`, and of what readers have now, a run holds.

    A video that is missing counts no more once its file is gone. The store is asked for that only where the missing
    alone stand between the run and the share that is `enough`, and no longer than that can still change it.
    """
    archive = storage.normalise(archive)
    keys, chosen = video_keys(load_ledger(archive, run_key)), current(archive)
    before = chosen.run_key if chosen is not None and chosen.run_key != run_key else None
    shown = set() if before is None else video_ids(video_keys(load_ledger(archive, before)).done)
    dead = [video for video in videos if video.video_key in keys.dead]
    lost = sum(video.video_id in shown for video in dead)
    others = shown - {video.video_id for video in videos}
    missing = others - video_ids(keys.done)
    held = sum(video.video_key in keys.done for video in videos) + len(dead) - lost + len(others) - len(missing)
    asked = len(videos) + len(others) - len(missing)
    left = len(missing)
    if before is not None and enough * asked <= held < enough * (asked + left):
        left -= _gone(archive, before, missing, bearable=held / enough - asked)
    return Coverage(share=held / (asked + left), lost=lost, missing=left)


def _gone(archive: str, run_key: str, missing: set[str], bearable: float) -> int:
    """How many of a run's videos are not in their store any more; stops once more than `bearable` still are."""
    units = {unit_id[:VIDEO_ID]: unit_id for unit_id in load_ledger(archive, run_key).committed}
    names = [units[video_id] for video_id in sorted(missing & units.keys())]
    gone = 0
    for first in range(0, len(names), _AT_ONCE):
        some = names[first : first + _AT_ONCE]
        commits = read_records(archive, commits_folder(run_key), CommitInfo, some)
        gone += still_there(commit.video.uri for commit in commits).count(False)
        if first + len(some) - gone > bearable:
            break
    return gone


def still_there(uris: Iterable[str]) -> list[bool]:
    """Whether each is in its store. A store that does not answer has not said that it is gone."""

    def look(uri: str) -> bool:
        try:
            return storage.is_file(uri)
        except StorageError:
            return True

    return list(storage.in_threads(look, uris, READERS))
