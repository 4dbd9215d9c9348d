"""What a person does with dead letters: look at one, have some tried again, take the list elsewhere."""

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from avs_core import storage
from avs_core.archive.layout import DeadLetter, dead_folder, unit_path
from avs_core.archive.ledger import VIDEO_ID, Ledger, load_ledger, video_ids, video_keys
from avs_core.archive.read import DEAD_SCHEMA, letters_table, read_letters, resolve_run
from avs_core.archive.schema import canonical_json
from avs_core.archive.state import read_letters_of
from avs_core.archive.versions import fingerprint_of_file, newest_commits, order_of
from avs_core.clip import video_key_of
from avs_core.errors import DEAD_CLASSES, AccessDenied, InputError, NotFound

EXPORTS = (".csv", ".parquet", ".json", ".txt")


def choose_letters(
    uri: str, run: str | None = None, classes: Collection[str] = (), video: str | None = None
) -> list[DeadLetter]:
    """The dead letters of these classes (all if none is named), of one video (its URI or a unit id) or of all.

    Raises `InputError` for a class that no letter can have, and for a video that has no letter.
    """
    unknown = sorted(set(classes) - set(DEAD_CLASSES))
    if unknown:
        raise InputError(
            f"a dead letter's class is one of {', '.join(sorted(DEAD_CLASSES))}; {', '.join(unknown)} is none of them"
        )
    letters = read_letters(uri, run)
    if video is not None:
        names = {video, _normalised(video)}
        letters = [letter for letter in letters if names & {letter.video.uri, letter.unit_id}]
        if not letters:
            raise InputError(f"a video must have a dead letter to be shown or retried; {video} has none in {uri}")
    return [letter for letter in letters if not classes or letter.error_class in classes]


def file_now(letter: DeadLetter) -> str:
    """What became of the letter's file since: "unchanged", "changed", "gone" or "denied".

    What no URI can name counts as gone.
    """
    try:
        found = storage.info(letter.video.uri)
    except (NotFound, InputError):
        return "gone"
    except AccessDenied:
        return "denied"
    return "unchanged" if found.fingerprint == fingerprint_of_file(letter.video.fingerprint) else "changed"


def _normalised(video: str) -> str:
    """A listing shows keys that no URI may hold, and they have letters too."""
    try:
        return storage.normalise(video)
    except InputError:
        return video


def retry_letters(uri: str, letters: Iterable[DeadLetter], run: str | None = None) -> int:
    """Remove the letters, so that the next run takes their units up; returns how many.

    What is on record about attempts stays: a suspect runs alone. Until the next run a video of which other units are
    committed counts as unfinished: readers show an older version of it, where they have a complete one.
    """
    archive = storage.normalise(uri)
    ids = [letter.unit_id for letter in letters]
    _remove(archive, resolve_run(archive, run), ids)
    return len(ids)


def forget_replaced(uri: str, run_key: str, doubtful: frozenset[str]) -> None:
    """Remove the letters of committed units, those that were in doubt whose videos are settled in another cut, and
    those of versions of a video that are older than the one that readers see."""
    archive = storage.normalise(uri)
    now = load_ledger(archive, run_key)
    keys = video_keys(replace(now, dead=now.dead - doubtful))
    replaced = {unit_id for unit_id in now.dead & doubtful if keys.settled(video_key_of(unit_id))}
    _remove(archive, run_key, sorted(replaced | now.overruled | _outdated(archive, run_key, now)))


def _outdated(archive: str, run_key: str, ledger: Ledger) -> set[str]:
    """The dead units of older versions. Opened are the letters of those videos of which a version is done."""
    done = video_keys(ledger).done
    ids = video_ids(done) if ledger.dead else set()
    dead = (unit_id for unit_id in ledger.dead if unit_id[:VIDEO_ID] in ids)
    named = {unit_id for unit_id in dead if video_key_of(unit_id) not in done}
    newest = newest_commits(archive, run_key, ledger, {unit_id[:VIDEO_ID] for unit_id in named})
    return {
        letter.unit_id
        for letter in read_letters_of(archive, run_key, named)
        if (commit := newest.get(letter.video.video_id)) is not None
        and video_key_of(commit.unit_id) != video_key_of(letter.unit_id)  # a hole in what readers see stays one
        and order_of(letter.video) < order_of(commit.video)
    }


def _remove(archive: str, run_key: str, unit_ids: Iterable[str]) -> None:
    """Of these units; a letter that is gone already is no error."""
    for unit_id in unit_ids:
        storage.delete(storage.join(archive, unit_path(dead_folder(run_key), unit_id)))


def export_letters(letters: Sequence[DeadLetter], path: str) -> None:
    """Write letters to a file on disk or S3: a table (`DEAD_SCHEMA`), or in a `.txt` the URI of each video once.

    A `.txt`, `.csv` or `.parquet` is a manifest that `avs segment` takes. Raises `InputError` for another suffix.
    """
    uri = storage.normalise(path)
    suffix = f".{uri.rpartition('.')[2].lower()}"
    if suffix not in EXPORTS:
        raise InputError(f"dead letters are exported to {', '.join(EXPORTS)}, not to {path}")
    storage.write_bytes(uri, _content(letters, suffix))


def _content(letters: Sequence[DeadLetter], suffix: str) -> bytes:
    table = letters_table(letters)
    if suffix == ".txt":
        return _lines(sorted({letter.video.uri for letter in letters}))
    if suffix == ".json":
        return canonical_json(table.to_pylist())
    if suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, DEAD_SCHEMA.names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.to_pylist())
        return text.getvalue().encode()
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _lines(uris: Iterable[str]) -> bytes:
    uris = list(uris)
    for uri in uris:
        if uri.splitlines() != [uri.strip()]:
            raise InputError(f"a .txt holds one URI a line, and {uri!r} is more or less than a line: export a .csv")
    return "".join(f"{uri}\n" for uri in uris).encode()
