"""A path or URI → the labelled set that lies there."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from avs_core import storage
from avs_core.datasets.avsbench.clips import AvsBench, Entry
from avs_core.datasets.avsbench.metadata import (
    AVSS_METADATA,
    LABELS,
    MS3_METADATA,
    S4_METADATA,
    Table,
    parse_avss,
    parse_labels,
    parse_ms3,
    parse_s4,
    with_ids,
)
from avs_core.datasets.avsbench.truth import instances_path, with_manifest
from avs_core.datasets.benchmark.layout import CATEGORIES, MANIFEST, PLAN
from avs_core.datasets.benchmark.manifest import ManifestRow, from_parquet
from avs_core.datasets.labelled import Setting
from avs_core.errors import ConfigError, DataError, InputError, NotFound

Kind = Literal["auto", "s4", "ms3", "avss"]

_PLACES: dict[Setting, tuple[str, ...]] = {
    "s4": (S4_METADATA, f"Single-source/{S4_METADATA}"),
    "ms3": (MS3_METADATA, f"Multi-sources/{MS3_METADATA}"),
    "avss": (AVSS_METADATA,),
}
"""Where the tables lie below what is opened: in the folder itself, or in those of the official copy."""

_NAMES: dict[Setting, str] = {"s4": "AVSBench S4", "ms3": "AVSBench MS3", "avss": "AVSBench semantic"}


@dataclass(frozen=True)
class _Tree:
    """A tree whose metadata was read: its table, its classes, and the hash of both."""

    setting: Setting
    root: str
    table: Table
    categories: tuple[str, ...]
    digest: bytes


def open_dataset(uri: str, kind: Kind = "auto") -> AvsBench:
    """The data set at a path or URI: AVSBench in an official layout, or the composite benchmark.

    `auto` takes what is there: S4 and MS3 side by side become one set of all their clips, with MS3's objective. Reads
    the metadata only, so it tells nothing about the files (see `check_dataset`).
    Raises InputError for a folder without a data set of this kind, ConfigError where AVSS lies beside others and none
    was chosen, DataError for metadata that can't be read, and for a benchmark whose build isn't finished.
    """
    root = storage.normalise(uri)
    manifest = _manifest(root)
    settings: tuple[Setting, ...] = ("s4", "ms3", "avss") if kind == "auto" else (kind,)
    trees = [tree for setting in settings if (tree := _open_tree(root, setting)) is not None]
    if not trees:
        raise InputError(_nothing(root, settings))
    if len(trees) > 1 and trees[-1].setting == "avss":
        raise ConfigError(
            f"AVSS has another objective than S4 and MS3; {storage.redacted(root)} holds both: choose the kind s4, "
            f"ms3 or avss"
        )
    return _plain(root, trees) if manifest is None else _composites(root, trees, *manifest)


def _nothing(root: str, settings: Iterable[Setting]) -> str:
    if not storage.is_directory(root):
        return f"a data set must be a folder; {storage.redacted(root)} is none: check the path"
    tables = [place for setting in settings for place in _PLACES[setting]]
    return (
        f"a data set must have its metadata; {storage.redacted(root)} has no {' or '.join(tables)}: give the folder "
        f"that holds it"
    )


def _open_tree(root: str, setting: Setting) -> _Tree | None:
    for place in _PLACES[setting]:
        try:
            data = storage.read_bytes(storage.join(root, place))
        except NotFound:
            continue
        folder = place.rpartition("/")[0]
        return _tree(storage.join(root, folder) if folder else root, setting, data)
    return None


def _tree(root: str, setting: Setting, data: bytes) -> _Tree:
    if setting == "avss":
        labels = _read(root, LABELS, "names the colours of the masks")
        categories, findings = parse_labels(labels)
        table = parse_avss(data, categories)
        table = Table(table.clips, findings + table.findings)
        return _Tree(setting, root, table, categories, _digest(data, labels))
    table = parse_s4(data) if setting == "s4" else parse_ms3(data)
    categories = tuple(sorted({name for clip in table.clips for name in clip.ref.categories}))
    return _Tree(setting, root, table, categories, _digest(data))


def _plain(root: str, trees: list[_Tree]) -> AvsBench:
    """AVSBench itself, one tree or two."""
    entries: list[Entry] = []
    for tree in trees:
        clips = with_ids(tree.table.clips, [entry.listed.ref.clip_id for entry in entries])
        entries += [Entry(clip, tree.root) for clip in clips]
    return AvsBench(
        uri=root,
        name=" + ".join(_NAMES[tree.setting] for tree in trees),
        setting=trees[-1].setting,
        categories=tuple(dict.fromkeys(name for tree in trees for name in tree.categories)),
        version=_digest(*(tree.digest for tree in trees)).hex()[:16],
        entries=tuple(entries),
        findings=tuple(finding for tree in trees for finding in tree.table.findings),
    )


def _composites(root: str, trees: list[_Tree], rows: list[ManifestRow], version: str) -> AvsBench:
    """The composite benchmark."""
    wanted = {tree.setting for tree in trees}
    listed = [clip for tree in trees for clip in tree.table.clips]
    clips, findings = with_manifest(listed, [row for row in rows if row.setting in wanted])
    return AvsBench(
        uri=root,
        name="composite benchmark",
        setting=trees[-1].setting,
        categories=_categories(root),
        version=version,
        entries=tuple(Entry(clip, root, instances_path(clip)) for clip in clips),
        findings=(*(finding for tree in trees for finding in tree.table.findings), *findings),
    )


def _manifest(root: str) -> tuple[list[ManifestRow], str] | None:
    """The rows and the version of a composite benchmark; None for AVSBench itself."""
    try:
        return from_parquet(storage.read_bytes(storage.join(root, MANIFEST)))
    except NotFound as error:
        if storage.is_file(storage.join(root, PLAN)):
            raise DataError(
                f"a benchmark must be built to its end; {storage.redacted(root)} has no {MANIFEST}: run the same "
                f"`avs benchmark build` again"
            ) from error
        return None


def _categories(root: str) -> tuple[str, ...]:
    data = _read(root, CATEGORIES, "names the classes")
    try:
        names = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{CATEGORIES} of {storage.redacted(root)} must be JSON, {error}: build it again") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{CATEGORIES} of {storage.redacted(root)} must be a list of names: build it again")
    return tuple(names)


def _read(root: str, name: str, why: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(root, name))
    except NotFound as error:
        raise DataError(
            f"a data set must have its {name}, which {why}; {storage.redacted(root)} has none: copy it again"
        ) from error


def _digest(*contents: bytes) -> bytes:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).digest()
