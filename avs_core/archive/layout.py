"""Where things lie in an archive, relative to it, and the records that lie there as JSON."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, field_validator

from avs_core import storage
from avs_core.archive.schema import SCHEMA_VERSION
from avs_core.clip import Unit, VideoRef
from avs_core.errors import DEAD_CLASSES, CorruptArchive, NotFound

RUNS = "_runs"
COMMITS = "_commits"
DEAD = "_dead"
STAGED = "_staged"
TOUCHED = "_touched"
LEASES = "_leases"
CURRENT = "_current"
STATS = "_stats"
ATTEMPTS = "_attempts"
BOOKKEEPING = (LEASES, STATS, ATTEMPTS)
"""What jobs keep for themselves: it tells of clocks, hosts and crashes, and no reader needs it."""
SUFFIX = ".json"

Record = TypeVar("Record", bound=BaseModel)


class StoredRecord(BaseModel):
    """A record that lies in an archive as JSON: frozen, and nothing unknown in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoRecord(StoredRecord):
    """The video a unit belongs to, as it was seen."""

    uri: str
    video_id: str
    fingerprint: str
    size: int
    modified_us: int
    content: str = ""

    @classmethod
    def of(cls, video: VideoRef) -> "VideoRecord":
        """The record of a video."""
        return cls(
            uri=video.uri,
            video_id=video.video_id,
            fingerprint=video.fingerprint,
            size=video.size,
            modified_us=video.modified_us,
            content=video.content,
        )


class TouchRecord(StoredRecord):
    """The version of a video that is there now, and the key of the one whose masks stand for it."""

    video: VideoRecord
    as_key: str


class FileRecord(StoredRecord):
    """A Parquet file of a commit; `path` is relative to the archive."""

    path: str
    sha256: str
    bytes: int
    rows: int

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if {"", ".", ".."} & set(path.split("/")) or "\0" in path:
            raise ValueError(f"a file of an archive must lie below it: a relative path without . or .., got {path!r}")
        return path


class CommitInfo(StoredRecord):
    """The commit of a unit: seconds [start_s, stop_s) of a video, part `index` of `of`.

    flags  of its decoding; once it is published, those of its whole video, as far as that was done by then
    shown  how many frames of the source are first shown within it: what the next unit counts its frames from
    """

    unit_id: str
    video: VideoRecord
    start_s: int
    stop_s: int
    index: int
    of: int
    data: FileRecord
    frames: FileRecord
    flags: tuple[str, ...] = ()
    shown: int | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def instances(self) -> int:
        """Rows under data/."""
        return self.data.rows


class Software(StoredRecord):
    """What judged a unit: the version of this package, and those of the decoders."""

    code: str = ""
    decoder: str = ""


class DeadLetter(StoredRecord):
    """Why a unit could not be done. `stage` is where it showed.

    `attempts` is how often it was tried while the driver lived. That and `software` change with what happens to
    machines, so that `archive_digest` leaves them out.
    """

    unit_id: str
    video: VideoRecord
    start_s: int
    stop_s: int
    index: int
    of: int
    error_class: str
    stage: str
    message: str
    attempts: int
    flags: tuple[str, ...] = ()
    software: Software = Software()

    @property
    def by_store(self) -> bool:
        """Whether the store was the reason and not the file."""
        kind = DEAD_CLASSES.get(self.error_class)
        return kind is not None and kind.by_store

    def doubtful(self, decoder: str) -> bool:
        """Whether a job with these versions of the decoder may come to another end with the file as it is."""
        kind = DEAD_CLASSES.get(self.error_class)
        by_decoder = kind is not None and kind.by_decoder and self.software.decoder != decoder
        return self.by_store or by_decoder


def run_path(run_key: str) -> str:
    """The record of a run."""
    return f"{RUNS}/{run_key}{SUFFIX}"


def table_path(kind: str, run_key: str, unit: Unit) -> str:
    """The Parquet file of a unit; `kind` is data or frames."""
    return f"{kind}/run={run_key}/shard={unit.shard}/{unit.unit_id}.parquet"


def commits_folder(run_key: str) -> str:
    """Where the commits of a run lie."""
    return f"{COMMITS}/run={run_key}"


def dead_folder(run_key: str) -> str:
    """Where the dead letters of a run lie."""
    return f"{DEAD}/run={run_key}"


def touched_folder(run_key: str) -> str:
    """Where it is written down that a video was touched and not changed."""
    return f"{TOUCHED}/run={run_key}"


def attempts_folder(run_key: str) -> str:
    """Where drivers note what was tried in vain."""
    return f"{ATTEMPTS}/run={run_key}"


def staging(run_key: str) -> str:
    """Where units of cut videos wait for each other, a folder a video."""
    return f"{STAGED}/run={run_key}"


def staged_folder(run_key: str, video_key: str) -> str:
    """Where those of one video wait."""
    return f"{staging(run_key)}/{video_key}"


def unit_path(folder: str, unit_id: str) -> str:
    """The commit or dead letter of a unit."""
    return f"{folder}/{unit_id}{SUFFIX}"


def unit_ids(archive: str, folder: str, recursive: bool = False) -> frozenset[str]:
    """The units that have a record in the folder (or in folders below it), from one listing."""
    names = (found.uri.rpartition("/")[2] for found in storage.list_files(storage.join(archive, folder), recursive))
    return frozenset(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def parse(kind: type[Record], data: bytes, uri: str) -> Record:
    """A record from its JSON. Raises `CorruptArchive`."""
    try:
        return kind.model_validate_json(data)
    except ValueError as error:
        raise CorruptArchive(f"a {kind.__name__} must be readable; {uri} is not: {error}") from error


def find_record(kind: type[Record], uri: str) -> Record | None:
    """The record that lies there, None where none does. Raises `CorruptArchive`, `StorageError`."""
    try:
        return parse(kind, storage.read_bytes(uri), uri)
    except NotFound:
        return None
