"""A user's list of videos as a file: read with limits, since a small file may unpack to more than a machine holds."""

import csv
import io
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from avs_core import storage
from avs_core.errors import InputError

MANIFEST_SUFFIXES = (".txt", ".csv", ".parquet")
MANIFEST_COLUMNS = ("uri", "video_uri", "path", "video")

STATE = "state"
PLAN_COLUMNS = frozenset({"video_uri", "video_id", STATE, "fingerprint"})
"""By these a Parquet manifest is known for a plan of ours; a user's own column named state may mean anything."""

DELETED = "deleted"
"""The state of what a plan lists because it is gone: there is nothing to do with it."""

MAX_BYTES = 256 << 20
"""Of a manifest, and of its one column that is read, unpacked."""

MAX_ENTRIES = 5_000_000
MAX_LINE = 1 << 16
"""Characters of a line."""

MAX_LINES = 1000
"""Of one record of a CSV file: its text may hold line breaks."""

MAX_URI_BYTES = 4096
BATCH = 16_384

WAY_OUT = "cut it into several, or name a directory or an S3 Inventory"


def manifest_entries(uri: str) -> list[str]:
    """What a manifest names, as it is written there: `.txt` one URI a line, else the column of `MANIFEST_COLUMNS`.

    Of a plan (`avs plan --out`), all videos but those that it found gone; what it calls done is done in one run only.
    Raises InputError for a file that is none or is beyond a limit; no more than the limits is ever read or unpacked.
    """
    size = storage.info(uri).size
    if size > MAX_BYTES:
        raise InputError(f"a manifest may have at most {MAX_BYTES} bytes; {uri} has {size}: {WAY_OUT}")
    read = {"txt": _text, "csv": _csv, "parquet": _parquet}[uri.lower().rpartition(".")[2]]
    entries: list[str] = []
    try:
        with storage.open_read(uri) as file, closing(read(file, uri)) as found:
            for entry in found:
                if len(entries) == MAX_ENTRIES:
                    raise InputError(f"a manifest may have at most {MAX_ENTRIES} entries; {uri} has more: {WAY_OUT}")
                entries.append(entry)
    except UnicodeDecodeError as error:
        raise InputError(f"a text manifest must be UTF-8; {uri} is not: {error}") from error
    except csv.Error as error:
        raise InputError(f"a .csv manifest must be readable; {uri} is not: {error}: write it again") from error
    except (pa.ArrowException, OSError) as error:  # pyarrow says the latter of damaged pages
        raise InputError(f"a .parquet manifest must be a Parquet file; {uri}: {error}") from error
    return entries


def short_lines(file: io.TextIOBase, name: str) -> Iterator[str]:
    """The lines of a text, with their ends. Raises InputError for one that is longer than `MAX_LINE` characters."""
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise InputError(f"a line of a list may have at most {MAX_LINE} characters; one of {name} has more")
        yield line


def _text(file: io.BufferedReader, uri: str) -> Generator[str, None, None]:
    with io.TextIOWrapper(file, "utf-8-sig") as text:
        for line in short_lines(text, uri):
            if (entry := line.strip()) and not entry.startswith("#"):
                yield entry


def _csv(file: io.BufferedReader, uri: str) -> Generator[str, None, None]:
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        lines = _Records(short_lines(text, uri), uri)
        rows = csv.reader(lines)
        names = next(rows, [])
        column = names.index(_uri_column(names, uri))
        for row in rows:
            lines.taken = 0
            if len(row) > column and row[column]:
                yield row[column]


class _Records:
    """Lines for a CSV reader, which collects a record in memory: `taken` counts those of the one that it is at."""

    def __init__(self, lines: Iterator[str], uri: str) -> None:
        self._lines, self._uri = lines, uri
        self.taken = 0

    def __iter__(self) -> "_Records":
        return self

    def __next__(self) -> str:
        self.taken += 1
        if self.taken > MAX_LINES:
            raise InputError(
                f"a record of a .csv manifest may have at most {MAX_LINES} lines; one of {self._uri} has more: "
                f"is a quotation mark missing?"
            )
        return next(self._lines)


def _parquet(file: io.BufferedReader, uri: str) -> Generator[str, None, None]:
    """The values of one column, batch by batch; the footer is asked before anything is unpacked."""
    schema = pq.read_schema(file)
    name = _uri_column(schema.names, uri)
    columns = [name, STATE] if set(schema.names) >= PLAN_COLUMNS else [name]
    for column in columns:
        _check_text(schema, column, uri)
    file.seek(0)
    opened = pq.ParquetFile(file, read_dictionary=columns)
    for column in columns:
        _check_footer(opened.metadata, column, uri)
    for batch in opened.iter_batches(BATCH, columns=columns):
        for values in batch.columns:
            _check_lengths(values, uri)
        if STATE in columns:
            states = batch.column(STATE).cast(pa.string())
            batch = batch.filter(pc.fill_null(pc.not_equal(states, DELETED), True))
        yield from (value for value in batch.column(name).to_pylist() if value)


def _check_text(schema: pa.Schema, column: str, uri: str) -> None:
    if schema.names.count(column) > 1:
        raise InputError(f"a manifest must have one column {column}; {uri} has {schema.names.count(column)}")
    field = schema.field(column)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"the column {field.name} of a manifest must be text; that of {uri} is {kind}")


def _check_lengths(values: pa.Array, uri: str) -> None:
    distinct = values.dictionary if isinstance(values, pa.DictionaryArray) else values
    longest = pc.max(pc.binary_length(distinct)).as_py() or 0
    if longest > MAX_URI_BYTES:
        raise InputError(f"an entry of a manifest may have at most {MAX_URI_BYTES} bytes; one of {uri}: {longest}")


def _check_footer(metadata: pq.FileMetaData, name: str, uri: str) -> None:
    if metadata.num_rows > MAX_ENTRIES:
        raise InputError(f"a manifest may have at most {MAX_ENTRIES} entries; {uri} has {metadata.num_rows}: {WAY_OUT}")
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    columns = [group.column(at) for group in groups for at in range(group.num_columns)]
    ours = [column for column in columns if column.path_in_schema == name]
    if (unpacked := sum(column.total_uncompressed_size for column in ours)) > MAX_BYTES:
        raise InputError(
            f"the column {name} of a manifest may have at most {MAX_BYTES} bytes unpacked; that of {uri} has "
            f"{unpacked}: {WAY_OUT}"
        )
    if any("DELTA_BYTE_ARRAY" in column.encodings for column in ours):
        raise InputError(
            f"the column {name} of a manifest must be encoded plainly or by a dictionary (what repeats the start of "
            f"the value before can unpack to anything); that of {uri} is DELTA_BYTE_ARRAY: write it again"
        )


def _uri_column(columns: Iterable[str], uri: str) -> str:
    columns = list(columns)
    for name in MANIFEST_COLUMNS:
        if name in columns:
            return name
    seen = ", ".join(map(str, columns[:20]))[:500]
    raise InputError(
        f"a manifest needs a column named one of {', '.join(MANIFEST_COLUMNS)}; {uri} has {seen or 'no columns'}"
    )
