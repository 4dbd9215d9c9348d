"""The manifest: a row for every clip, with all that it is made of."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from avs_core.datasets.benchmark.plan import Kind, Tree
from avs_core.datasets.sources import Split, source_key
from avs_core.errors import DataError

LISTS = ("categories", "subsets", "image_refs", "sound_refs", "silent", "larger")
NUMBERS = ("seed", "sources", "seconds")
MAX_CLIPS = 1_000_000


@dataclass(frozen=True)
class ManifestRow:
    """One clip.

    seed           of the scene that was composed
    source_id      16 hex digits over everything that the clip is made of
    categories     what sounds in the picture; `sources` counts the objects
    subsets        named groups that figures are reported for
    sound_refs     recordings that are heard, off-screen ones too
    silent         classes of the objects that never sound; `larger`: those at least as large as the largest source
    video          path below the root
    """

    clip_id: str
    setting: Tree
    split: Split
    kind: Kind
    seed: int
    seconds: int
    source_id: str
    categories: tuple[str, ...]
    sources: int
    subsets: tuple[str, ...]
    image_refs: tuple[str, ...]
    sound_refs: tuple[str, ...]
    background_ref: str
    silent: tuple[str, ...]
    larger: tuple[str, ...]
    video: str


def source_id(refs: Iterable[str]) -> str:
    """What stands for a set of sources: equal for clips that are made of the same ones."""
    return hashlib.sha256("\n".join(sorted(set(refs))).encode()).hexdigest()[:16]


def with_distractors(rows: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Add "silent-distractor" where a silent object is at least as large as the largest source, and sounds elsewhere.

    Elsewhere means: its class is heard in the picture of another clip of the split.
    """
    heard: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for category in row.categories:
            heard.setdefault((row.split, category), set()).add(row.clip_id)
    return [
        replace(row, subsets=(*row.subsets, "silent-distractor"))
        if any(heard.get((row.split, category), set()) - {row.clip_id} for category in row.larger)
        else row
        for row in rows
    ]


def leaks(rows: Iterable[ManifestRow]) -> list[str]:
    """Pictures, recordings and places (by individual, see `source_key`) that are in more than one split.

    The unseen classes stand in the places of "test": that alone is allowed.
    """
    splits: dict[str, set[str]] = {}
    for row in rows:
        place = "test" if row.split == "unseen" else row.split
        used = [("picture", ref, row.split) for ref in row.image_refs]
        used += [("recording", ref, row.split) for ref in row.sound_refs]
        for kind, ref, split in [*used, ("place", row.background_ref, place)]:
            splits.setdefault(f"{kind} {source_key(ref)}", set()).add(split)
    return [f"{key} is in {', '.join(sorted(found))}" for key, found in sorted(splits.items()) if len(found) > 1]


def to_parquet(rows: Sequence[ManifestRow], version: str) -> bytes:
    """The rows as a Parquet file that names the benchmark's version. Raises DataError if a source crosses splits."""
    if crossing := leaks(rows):
        raise DataError(f"no source may be in two splits, {len(crossing)} are: {'; '.join(crossing[:3])}")
    columns = [pa.field(one.name, _type(one.name)) for one in fields(ManifestRow)]
    schema = pa.schema(columns, metadata={"version": version})
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _type(name: str) -> pa.DataType:
    if name in LISTS:
        return pa.list_(pa.string())
    return pa.int64() if name in NUMBERS else pa.string()


def from_parquet(data: bytes) -> tuple[list[ManifestRow], str]:
    """The rows and the version. Raises DataError for a file that is no manifest."""
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows > MAX_CLIPS:
            raise DataError(f"a manifest may list at most {MAX_CLIPS} clips, this one says {file.metadata.num_rows}")
        table = file.read()
        version = table.schema.metadata[b"version"].decode()
        return [row_from_json(row) for row in table.to_pylist()], version
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise DataError(f"a manifest must be written by `avs benchmark build`, this one is not: {error}") from error


def row_from_json(row: dict[str, Any]) -> ManifestRow:
    """A row whose lists are lists. Raises TypeError for unknown or missing columns."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return ManifestRow(**values)
