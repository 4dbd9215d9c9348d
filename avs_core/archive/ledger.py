"""What a run has done, from a listing: the names of commits and dead letters suffice.

Letters are opened only to tell which of them are in doubt: another version of the decoder wrote them, or the store
refused the file.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from avs_core import storage
from avs_core.archive.layout import commits_folder, dead_folder, staging, touched_folder, unit_ids
from avs_core.archive.state import read_letters_of
from avs_core.clip import video_key_of
from avs_core.errors import CorruptArchive, InputError


@dataclass(frozen=True)
class Ledger:
    """The ids of a run's units that need nothing more. A unit that is committed and dead counts as committed.

    Those that are `staged` wait for the others of their video, see avs_core.archive.staging. `touched` are keys of
    videos that were written again with the content they had, see avs_core.archive.touched. Units that are `doubtful`
    need another look: another decoder judged them, or the store refused their file, and their letters stay until then.
    Units that are `overruled` are committed, and a letter of theirs is still there, which nobody is shown.
    """

    committed: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    staged: frozenset[str] = frozenset()
    touched: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()
    overruled: frozenset[str] = frozenset()


@dataclass(frozen=True)
class VideoKeys:
    """How the videos of a run stand, by `VideoRef.video_key`.

    A video is settled when every unit of one cut of it is committed or dead: it is among the `dead` if one of them is
    dead, else among the `done`; a touched one is done. One that is `begun` has some unit and is not settled.
    """

    done: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)

    def settled(self, key: str) -> bool:
        """Whether it needs nothing more."""
        return key in self.done or key in self.dead


def load_ledger(uri: str, run_key: str, decoder: str | None = None) -> Ledger:
    """The ledger of a run; empty where there is no archive yet.

    With `decoder`, the versions in use, letters are told apart that a job with them would not have to write again.
    """
    archive = storage.normalise(uri)
    if not archive.startswith("s3://") and storage.is_file(archive):  # on S3 an object may have a prefix's name
        raise InputError(f"an archive must be a folder, {archive} is a file")
    committed = unit_ids(archive, commits_folder(run_key))
    letters = unit_ids(archive, dead_folder(run_key))
    dead = letters - committed
    staged = unit_ids(archive, staging(run_key), recursive=True)
    touched = unit_ids(archive, touched_folder(run_key))
    doubtful = frozenset() if decoder is None else _doubtful(archive, run_key, dead, decoder)
    return Ledger(committed, dead - doubtful, staged, touched, doubtful, letters & committed)


def _doubtful(archive: str, run_key: str, dead: frozenset[str], decoder: str) -> frozenset[str]:
    letters = read_letters_of(archive, run_key, dead)
    return frozenset(letter.unit_id for letter in letters if letter.doubtful(decoder))


def video_keys(ledger: Ledger) -> VideoKeys:
    """How each video stands that the ledger knows of."""
    dead = {key for key, _ in map(_cut, ledger.dead)}
    keys = VideoKeys(done=set(ledger.touched))
    for key, settled in _settled(ledger).items():
        # A cut that was begun in another length of units needs no end once one cut is whole.
        if settled:
            (keys.dead if key in dead else keys.done).add(key)
        elif not keys.settled(key):
            keys.begun.add(key)
    waiting = ledger.staged | ledger.doubtful
    keys.begun.update(key for key, _ in map(_cut, waiting) if not keys.settled(key))
    return keys


def dead_keys(ledger: Ledger) -> set[str]:
    """Keys of the videos that could not be done, and are not yet, with those that the next job will try again."""
    keys = video_keys(ledger)
    return keys.dead | {key for key, _ in map(_cut, ledger.doubtful)} - keys.done


def shares_left(ledger: Ledger, begun: Collection[str]) -> dict[str, float]:
    """Of each video that is begun, by its key, the share of its units that are neither done nor dead."""
    if not begun:
        return {}
    ids = {one for ids in (ledger.committed, ledger.staged, ledger.dead) for one in ids if video_key_of(one) in begun}
    left: dict[str, float] = {}
    for (key, of), count in Counter(map(_cut, ids)).items():
        # Of several cuts a job ends the one of which most is there.
        left[key] = min(1 - count / of, left.get(key, 1.0))
    return left


def _settled(ledger: Ledger) -> dict[str, bool]:
    """Of each video that has a committed or dead unit, whether one cut of it is whole."""
    whole: dict[str, bool] = {}
    parts: Counter[tuple[str, int]] = Counter()
    for ids in (ledger.committed, ledger.dead):
        for unit_id in ids:
            key, of = _cut(unit_id)
            if of > 1:
                parts[key, of] += 1
            whole[key] = of == 1 or whole.get(key, False)
    for (key, of), count in parts.items():
        whole[key] = whole[key] or count == of
    return whole


def _cut(unit_id: str) -> tuple[str, int]:
    """The video key in a unit's id, and into how many units the video was cut."""
    key, _, part = unit_id.partition("-")
    count = part.partition("of")[2]
    if not count.isdecimal() or not int(count):
        raise CorruptArchive(
            f"a record of an archive must have the name of a unit, got {unit_id}.json: a file of another kind lies "
            f"among commits, letters or staged units; take it away"
        )
    return key, int(count)


def video_ids(keys: Iterable[str]) -> set[str]:
    """The ids (`VideoRef.video_id`) that stand in keys."""
    return {key[:VIDEO_ID] for key in keys}


VIDEO_ID = 16
"""Hex digits of a video key that are the video id."""
