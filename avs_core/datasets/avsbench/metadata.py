"""The tables of AVSBench → clips, with the known dirt handled and reported.

Dirt that is mended, each with a finding of kind "dirt":

- a byte order mark, blank lines, spaces around a value, more values than columns
- the first column of MS3 is called `video_id`, `id` or `name`; columns that aren't needed (S4's `start` or
  `start_time`, pandas' index) may be there or not, and are no finding
- a split in capitals, `.mp4` at the end of an id, spaces inside a category's name (its folder has underscores)
- a row that is there twice
- MS3: clips of one video with and without a part number (`mbGrFe9TUbI` in val, `mbGrFe9TUbI_0` in train), and a name
  that is no video's (`baby_dog_2_1`): `source_video` tells which belong together
- AVSS: `vid` of a `v1m` clip holds the part number, so that the `uid` is read instead; `a_obj` may name what is no
  class (`off-the-screen`); label2idx.json counts from 1 in some copies
- test clips whose source video is in train: 38 of the 64 of MS3, and some of AVSS, where videos of S4 came again

A row that can't be understood (no split, an id that is no file name), or that gives one id two places, is
"contradicting": the clip is left out, and the copy is damaged.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from avs_core.datasets.avsbench.findings import Finding
from avs_core.datasets.labelled import ClipRef
from avs_core.errors import DataError

S4_METADATA, MS3_METADATA, AVSS_METADATA, LABELS = (
    "s4_meta_data.csv",
    "ms3_meta_data.csv",
    "metadata.csv",
    "label2idx.json",
)
SPLITS = ("train", "val", "test", "unseen")
"""`unseen` is the composite benchmark's: classes that are in no other split."""

AVSS_SECONDS: Mapping[str, int] = {"v1s": 5, "v1m": 5, "v2": 10}
"""v1s: the clips of S4, of which train labels the first frame alone; v1m: those of MS3; v2: new ones of 10 s."""

CLASSES = 71
OFF_SCREEN = "off-the-screen"

_YOUTUBE_PART = re.compile(r"([A-Za-z0-9_-]{11})(?:_\d+)*")
_PART = re.compile(r"(.+)_\d+")
_FILE_NAME = re.compile(r"[^/\\\0]+")


@dataclass(frozen=True)
class Listed:
    """A clip of a table: its ref, its name in the tree, and the folder (category of S4, label of AVSS) of its files."""

    ref: ClipRef
    name: str
    folder: str = ""


@dataclass(frozen=True)
class Table:
    """The clips of a metadata file in file order, and what was wrong with it."""

    clips: tuple[Listed, ...]
    findings: tuple[Finding, ...]


@dataclass
class _Reading:
    """A table while it is read: rows as (line, values by canonical column), and the findings so far."""

    path: str
    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def dirt(self, line: int, message: str) -> None:
        self.findings.append(Finding("dirt", f"{self.path}:{line}", message))

    def contradicting(self, line: int, message: str) -> None:
        self.findings.append(Finding("contradicting", f"{self.path}:{line}", message))


def source_video(clip_id: str) -> str:
    """The video that a clip was cut from: a YouTube id has 11 characters, what follows are part numbers or times.

    `ygrrc2Saf_8_10` → `ygrrc2Saf_8`, and `__GOGlHL23s_4000_9000` → `__GOGlHL23s`. Ids of another kind lose their last
    number: `baby_dog_2_1` → `baby_dog_2`.
    """
    youtube = _YOUTUBE_PART.fullmatch(clip_id)
    if youtube:
        return youtube[1]
    part = _PART.fullmatch(clip_id)
    return part[1] if part else clip_id


def parse_s4(data: bytes, path: str = S4_METADATA) -> Table:
    """The clips of S4. Raises DataError for a table without the columns name, category and split."""
    reading = _read(data, path, {"id": ("name", "video_id", "id"), "category": ("category",), "split": ("split",)})
    clips = []
    for line, row in reading.rows:
        category = row["category"]
        if not _FILE_NAME.fullmatch(category) or category in (".", ".."):
            reading.contradicting(line, f"a category must name a folder, got {category!r}")
            continue
        if " " in category:
            reading.dirt(line, f"spaces in the category {category!r} read as underscores")
            category = category.replace(" ", "_")
        ref = ClipRef(
            clip_id=row["id"],
            setting="s4",
            split=row["split"],
            source_id=source_video(row["id"]),
            seconds=5,
            labelled=(0,) if row["split"] == "train" else (0, 1, 2, 3, 4),
            categories=(category,),
            sources=1,
        )
        clips.append((line, Listed(ref, row["id"], category)))
    return _table(reading, clips)


def parse_ms3(data: bytes, path: str = MS3_METADATA) -> Table:
    """The clips of MS3. Raises DataError for a table without an id and a split."""
    reading = _read(data, path, {"id": ("video_id", "id", "name"), "split": ("split",)})
    clips = []
    for line, row in reading.rows:
        ref = ClipRef(row["id"], "ms3", row["split"], source_video(row["id"]), 5, (0, 1, 2, 3, 4))
        clips.append((line, Listed(ref, row["id"])))
    return _table(reading, clips)


def parse_avss(data: bytes, categories: Sequence[str], path: str = AVSS_METADATA) -> Table:
    """The clips of AVSS; `categories` are the classes of `parse_labels`. Raises DataError for missing columns."""
    wanted = {"id": ("uid",), "objects": ("a_obj",), "split": ("split",), "label": ("label",)}
    reading = _read(data, path, wanted)
    clips = []
    for line, row in reading.rows:
        if row["label"] not in AVSS_SECONDS:
            reading.contradicting(line, f"a label must be one of {', '.join(AVSS_SECONDS)}, got {row['label']!r}")
            continue
        strangers = [name for name in row["objects"].split("_") if name not in categories]
        if strangers:
            reading.dirt(line, f"a_obj names no class of {LABELS}: {', '.join(map(repr, strangers))}")
        clips.append((line, Listed(_avss_ref(row, categories), row["id"], row["label"])))
    return _table(reading, clips)


def _avss_ref(row: Mapping[str, str], categories: Sequence[str]) -> ClipRef:
    label, named = row["label"], row["objects"].split("_")
    seconds = AVSS_SECONDS[label]
    return ClipRef(
        clip_id=row["id"],
        setting="avss",
        split=row["split"],
        source_id=source_video(row["id"]),
        seconds=seconds,
        labelled=(0,) if (label, row["split"]) == ("v1s", "train") else tuple(range(seconds)),
        categories=tuple(dict.fromkeys(name for name in named if name in categories)),
        sources=1 if label == "v1s" else None,
        subsets=(label, "off-screen") if OFF_SCREEN in named else (label,),
    )


def parse_labels(data: bytes, path: str = LABELS) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    """Names of the 71 classes by index, the background first. Raises DataError for anything else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} must be JSON, {error}: copy it again") from error
    if not isinstance(found, dict) or any(type(index) is not int for index in found.values()):
        raise DataError(f"{path} must map names of classes to numbers, it doesn't: copy it again")
    first = min(found.values(), default=0)
    if sorted(found.values()) != list(range(first, first + CLASSES)) or first not in (0, 1):
        raise DataError(
            f"{path} must number {CLASSES} classes from 0 (or 1) on without gaps; it numbers {len(found)} from "
            f"{first} on: copy it again"
        )
    names = tuple(sorted(found, key=lambda name: int(found[name])))
    if names[0] != "background":
        raise DataError(f"{path} must give the lowest number to the background, it gives it to {names[0]!r}")
    dirt = Finding("dirt", path, "the classes are counted from 1; read as from 0, the background")
    return names, (dirt,) if first else ()


def leaks(refs: Iterable[ClipRef]) -> set[str]:
    """Ids of the test clips whose source is in train too."""
    refs = tuple(refs)
    trained = {ref.source_id for ref in refs if ref.split == "train"}
    return {ref.clip_id for ref in refs if ref.split == "test" and ref.source_id in trained}


def with_ids(clips: Iterable[Listed], taken: Iterable[str]) -> tuple[Listed, ...]:
    """The clips with their setting before the ids that are taken: S4 and MS3 may cut one video."""
    taken = set(taken)
    return tuple(
        replace(clip, ref=replace(clip.ref, clip_id=f"{clip.ref.setting}-{clip.ref.clip_id}"))
        if clip.ref.clip_id in taken
        else clip
        for clip in clips
    )


def _read(data: bytes, path: str, columns: Mapping[str, Sequence[str]]) -> _Reading:
    """The rows of a table with the columns that are wanted, by their canonical names; id and split checked."""
    reading = _Reading(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be UTF-8 text, {error}: copy it again") from error
    if text.startswith("\ufeff"):
        reading.dirt(1, "starts with a byte order mark")
    lines = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(lines, [])]
        places = _places(header, columns, path)
        for values in lines:
            _keep(reading, lines.line_num, header, values, places)
    except csv.Error as error:
        raise DataError(f"{path} must be a table of comma-separated values, {error}: copy it again") from error
    return reading


def _places(header: Sequence[str], columns: Mapping[str, Sequence[str]], path: str) -> dict[str, int]:
    """Where each wanted column is."""
    places = {}
    for wanted, names in columns.items():
        found = [header.index(name) for name in names if name in header]
        if not found:
            raise DataError(
                f"{path} must have a column {' or '.join(names)}, it has {', '.join(header) or 'none'}: copy it again, "
                f"or give the kind of data set that it belongs to"
            )
        places[wanted] = found[0]
    return places


def _keep(
    reading: _Reading, line: int, header: Sequence[str], values: Sequence[str], places: Mapping[str, int]
) -> None:
    """Add a row, mended."""
    if not any(value.strip() for value in values):
        reading.dirt(line, "a line without values")
        return
    if len(values) > len(header):
        reading.dirt(line, f"{len(values)} values for {len(header)} columns; the last ones are left out")
    if len(values) <= max(places.values()):
        reading.contradicting(line, f"a row must have {len(header)} values, it has {len(values)}")
        return
    row = {name: values[place] for name, place in places.items()}
    for message, mended in _mended(row):
        reading.dirt(line, message)
        row = row | mended
    if row["split"] not in SPLITS:
        reading.contradicting(line, f"a split must be one of {', '.join(SPLITS)}, got {row['split']!r}")
    elif not _FILE_NAME.fullmatch(row["id"]) or row["id"] in (".", ".."):
        reading.contradicting(line, f"an id must be a file name, got {row['id']!r}")
    else:
        reading.rows.append((line, row))


def _mended(row: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """What is wrong with the values, and them right."""
    stripped = {name: value.strip() for name, value in row.items()}
    if stripped != row:
        yield "spaces around a value", stripped
    split, clip_id = stripped["split"], stripped["id"]
    if split != split.lower():
        yield f"the split {split!r} in capitals", {"split": split.lower()}
    if clip_id.endswith(".mp4"):
        yield f"the id {clip_id!r} ends as a file's name", {"id": clip_id.removesuffix(".mp4")}


def _table(reading: _Reading, clips: Iterable[tuple[int, Listed]]) -> Table:
    """Each clip once, and a word about leaks."""
    kept: dict[str, Listed] = {}
    for line, clip in clips:
        other = kept.setdefault(clip.name, clip)
        if other is clip:
            continue
        if other == clip:
            reading.dirt(line, f"{clip.name} again, with the same values")
        else:
            places = [f"{one.ref.split} {one.folder}".strip() for one in (clip, other)]
            reading.contradicting(line, f"{clip.name} again, in {places[0]} and before in {places[1]}")
    shared = leaks(clip.ref for clip in kept.values())
    if shared:
        tested = sum(clip.ref.split == "test" for clip in kept.values())
        message = f"{len(shared)} of {tested} test clips share a source video with train; test-leak-free has the others"
        reading.findings.append(Finding("dirt", reading.path, message))
    return Table(tuple(kept.values()), tuple(reading.findings))
