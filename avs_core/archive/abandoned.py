"""Staged units that no job will publish: they waited for the rest of their video, and the rest won't come.

A unit of a cut video is staged until all of its video are (see avs_core.archive.staging). It is left behind when its
video was settled without it (a publisher died before it had cleared up, another cut was whole first), when a version
of the video that came later is settled, or when nobody works at the run any more.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from avs_core import storage
from avs_core.archive.layout import LEASES, SUFFIX, attempts_folder, commits_folder, dead_folder, staging
from avs_core.archive.ledger import VIDEO_ID, Ledger, video_keys
from avs_core.clip import video_key_of
from avs_core.storage import ObjectInfo


def abandoned(archive: str, run_key: str, horizon: int) -> Iterator[ObjectInfo]:
    """The files of a run's staged units that nobody needs, each unit's record before what it lists.

    So a unit whose removal breaks off is not staged, and is done again if it is wanted after all. Of a video that is
    not settled nothing is named before all of it is older than `horizon` (µs since 1970), and then only when another
    version was settled after it, or when neither the run nor any lease of the archive shows a sign of life since.
    """
    staged: dict[str, list[ObjectInfo]] = defaultdict(list)
    for info in storage.list_files(storage.join(archive, staging(run_key))):
        staged[info.uri.rsplit("/", 2)[1]].append(info)
    if not staged:
        return
    committed, dead = (_records(archive, folder(run_key)) for folder in (commits_folder, dead_folder))
    settled = video_keys(Ledger(committed=frozenset(committed), dead=frozenset(dead)))
    later = _newest_versions({**dead, **committed}, settled.done | settled.dead)
    signs = [attempts_folder(run_key), LEASES]
    heard = [*committed.values(), *dead.values(), *(age for folder in signs for age in _ages(archive, folder))]
    newest = {key: max(info.modified_us for info in infos) for key, infos in staged.items()}
    idle = max([*heard, *newest.values()]) <= horizon
    for key, infos in sorted(staged.items()):
        replaced = later.get(key[:VIDEO_ID], 0) > newest[key]
        if settled.settled(key) or (newest[key] <= horizon and (replaced or idle)):
            yield from sorted(infos, key=lambda info: not info.uri.endswith(SUFFIX))


def _records(archive: str, folder: str) -> dict[str, int]:
    """The units that have a record there, and when the store got each (µs since 1970)."""
    found = storage.list_files(storage.join(archive, folder), recursive=False)
    named = ((info.uri.rpartition("/")[2], info.modified_us) for info in found)
    return {name.removesuffix(SUFFIX): age for name, age in named if name.endswith(SUFFIX)}


def _ages(archive: str, folder: str) -> Iterator[int]:
    return (info.modified_us for info in storage.list_files(storage.join(archive, folder)))


def _newest_versions(records: dict[str, int], settled: Iterable[str]) -> dict[str, int]:
    """Of each video id with a settled version: when the last of its records came."""
    keys, newest = frozenset(settled), dict[str, int]()
    for unit_id, age in records.items():
        key = video_key_of(unit_id)
        if key in keys:
            newest[key[:VIDEO_ID]] = max(age, newest.get(key[:VIDEO_ID], 0))
    return newest
