"""Small archives for the tests, the same each time."""

import numpy as np
import pyarrow as pa

from avs_core import masks
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.layout import CommitInfo, Software
from avs_core.archive.schema import FrameRow, RunRecord, frame_table, instance_table, sighting_table
from avs_core.clip import Instance, Unit, VideoRef

HEIGHT, WIDTH = 36, 64
RECORD = RunRecord(
    model="sample",
    weights_sha256="ab" * 32,
    preprocessing={"size": 224, "rate": 1},
    thresholds={"mask": 0.5},
    categories=("dog", "violin"),
    numerics={"device": "cpu"},
)


def video(name: str = "a", version: int = 1) -> VideoRef:
    """A version of a video; later ones are newer."""
    return VideoRef(f"s3://videos/{name}.mp4", 1000 + version, f"etag{version}-{1000 + version}", version * 1_000_000)


def picture(seed: int) -> np.ndarray:
    """The mask (H, W) that a seed stands for: two ellipses."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(2):
        cy, cx, ry, rx = random.uniform([0, 0, 3, 3], [HEIGHT, WIDTH, 15, 20])
        mask |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    return mask


def instance(mask: np.ndarray, object_id: int = 0, category: str | None = None) -> Instance:
    """The instance that covers a mask."""
    rle = masks.encode(mask)
    return Instance(
        object_id=object_id,
        counts=rle["counts"],
        height=mask.shape[0],
        width=mask.shape[1],
        area=masks.area(rle),
        bbox=masks.bbox(rle),
        score=0.75,
        category=category,
        category_score=None if category is None else 0.5,
        audio_score=None if category is None else 0.25,
    )


def frames(unit: Unit, seed: int = 0) -> list[FrameRow]:
    """A frame a second; every third holds nothing, the others the union and one dog."""
    rows = []
    for second in range(unit.start_s, unit.stop_s):
        mask = picture(seed + second)
        found = (instance(mask), instance(picture(seed + second + 500), 1, "dog")) if second % 3 else ()
        rows.append(FrameRow(second, 0, second * 25 + 23, second * 1_000_000 + 920_000, HEIGHT, WIDTH, True, (), found))
    return rows


def tables(unit: Unit, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """A unit's instances and frames."""
    rows = frames(unit, seed)
    return instance_table(unit.video, rows), frame_table(unit.video, rows)


def sightings(unit: Unit, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """What a unit saw, and its frames: the objects of each frame count from 1."""
    rows = frames(unit, seed)
    return sighting_table(unit.video, rows), frame_table(unit.video, rows)


def commit(writer: ArchiveWriter, unit: Unit, seed: int = 0) -> CommitInfo:
    """Commit the sample content of a unit."""
    return writer.commit_unit(unit, *tables(unit, seed))


def units(of: VideoRef, count: int = 1, seconds: int = 5) -> list[Unit]:
    """A video cut into so many units."""
    return [Unit(of, index * seconds, (index + 1) * seconds, index, count) for index in range(count)]


def opened(uri: str, record: RunRecord = RECORD, software: Software | None = None) -> ArchiveWriter:
    """A writer of an archive whose run is open."""
    writer = ArchiveWriter(uri, record, software)
    writer.open_run()
    return writer
