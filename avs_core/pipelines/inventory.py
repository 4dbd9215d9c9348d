"""S3 Inventory: a bucket's daily listing as files, for buckets that take hours to list.

What AWS writes beside the data, `manifest.json`, names the files and their columns; CSV (gzip, keys URL-encoded),
Parquet and ORC are read. An inventory is as old as it is: what came since is missing, what went since becomes a dead
letter.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import unquote_plus

import pyarrow as pa
from pydantic import BaseModel, Field

from avs_core import storage
from avs_core.clip import VideoRef
from avs_core.errors import InputError
from avs_core.pipelines.inventory_file import file_batches, plain
from avs_core.pipelines.manifest import short_lines

NAME = "manifest.json"
NEEDED = ("bucket", "key", "size", "lastmodifieddate", "etag")
OPTIONAL = ("islatest", "isdeletemarker")

MAX_OBJECTS = 50_000_000
"""Of one file."""

MAX_KEY = 1024
"""S3 itself allows 1024 bytes."""

MAX_SIZE = 2**63 - 1
"""Bytes: S3 itself allows 50 TB, a plan's column this."""

Entry = dict[str, Any]
"""Of one object: the values of NEEDED, and those of OPTIONAL that there are."""


class _File(BaseModel):
    key: str


class _Manifest(BaseModel):
    bucket: str = Field(alias="destinationBucket")
    format: Literal["CSV", "Parquet", "ORC"] = Field(alias="fileFormat")
    columns: str = Field(alias="fileSchema")
    files: list[_File]


def inventory_videos(uri: str, is_video: Callable[[str], bool]) -> Iterator[VideoRef]:
    """The newest version of each object whose key `is_video`, as a listing would show it.

    Raises `InputError` for a manifest that is no inventory's, for a file that is damaged, lacks a column or unpacks to
    more than a limit, and `StorageError`.
    """
    try:
        manifest = _Manifest.model_validate_json(storage.read_bytes(uri))
    except ValueError as error:
        raise InputError(f"{NAME} must be that of an S3 Inventory in CSV, Parquet or ORC; {uri}: {error}") from error
    bucket = manifest.bucket.rpartition(":")[2]  # an ARN
    for file in manifest.files:
        with storage.open_read(name := f"s3://{bucket}/{file.key}") as opened:
            try:
                for number, entry in enumerate(_read(opened, manifest, name)):
                    _check(entry["key"], number, name)
                    if is_video(entry["key"]) and _is_there(entry):
                        yield _video(entry)
            except (
                ValueError,
                KeyError,
                TypeError,
                OverflowError,
                EOFError,
                gzip.BadGzipFile,
                zlib.error,
                csv.Error,
            ) as error:
                raise InputError(
                    f"a file of an inventory must have the columns {', '.join(NEEDED)} and be whole; {name}: {error!r}"
                ) from error


def _read(file: io.BufferedReader, manifest: _Manifest, name: str) -> Iterator[Entry]:
    if manifest.format == "CSV":
        yield from _csv(file, manifest.columns)
        return
    for batch in file_batches(file, manifest.format, (*NEEDED, *OPTIONAL), name):
        yield from _entries(batch)


def _check(key: str, number: int, name: str) -> None:
    """What unpacks to no end must end somewhere."""
    if number >= MAX_OBJECTS:
        raise InputError(f"a file of an inventory may list at most {MAX_OBJECTS} objects; {name} lists more")
    if len(key) > MAX_KEY:
        raise InputError(f"a key of an object has at most {MAX_KEY} characters; {name} lists one with {len(key)}")


def _video(entry: Entry) -> VideoRef:
    size = int(entry["size"])
    if not 0 <= size <= MAX_SIZE:
        raise ValueError(f"a size must be 0 to {MAX_SIZE} bytes, got {size}")
    return VideoRef(
        uri=f"s3://{_text(entry, 'bucket')}/{_text(entry, 'key')}",
        size=size,
        fingerprint=f"{_text(entry, 'etag').strip(chr(34))}-{size}",
        modified_us=round(_time(entry["lastmodifieddate"]).timestamp() * 1_000_000),
    )


def _text(entry: Entry, column: str) -> str:
    value = entry[column]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{column} must be text, got {value!r}")
    return value


def _time(value: object) -> datetime:
    """When an object was written; inventories are in UTC, and Parquet's need not say so."""
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(time, datetime):
        raise ValueError(f"lastmodifieddate must be a time, got {value!r}")
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _is_there(entry: Entry) -> bool:
    """Whether it is an object's newest version, and not the mark of its deletion."""
    latest, deleted = entry.get("islatest", True), entry.get("isdeletemarker", False)
    return str(latest).lower() == "true" and str(deleted).lower() != "true"


def _csv(file: io.BufferedReader, columns: str) -> Iterator[Entry]:
    names = [name.strip().lower() for name in columns.split(",")]
    with gzip.open(file) as plain:
        for row in csv.reader(short_lines(io.TextIOWrapper(plain, "utf-8", newline=""), "an inventory")):
            entry = dict(zip(names, row, strict=True))
            yield entry | {"key": unquote_plus(entry["key"])}


def _entries(batch: pa.RecordBatch) -> Iterator[Entry]:
    names = list(map(plain, batch.schema.names))
    for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        yield dict(zip(names, values, strict=True))
