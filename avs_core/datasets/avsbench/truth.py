"""What the composite benchmark tells beyond AVSBench: its manifest, and the objects of each clip."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from avs_core import masks
from avs_core.datasets.avsbench.findings import Finding
from avs_core.datasets.avsbench.metadata import Listed
from avs_core.datasets.avsbench.pictures import resized_mask
from avs_core.datasets.benchmark.layout import MANIFEST
from avs_core.datasets.benchmark.manifest import ManifestRow
from avs_core.datasets.labelled import InstanceTruth
from avs_core.errors import DataError, InputError

INSTANCES = "instances"
"""The folder below the root that tells about objects."""


def with_manifest(clips: Iterable[Listed], rows: Iterable[ManifestRow]) -> tuple[list[Listed], list[Finding]]:
    """The clips with what the manifest tells about them; one that it doesn't know, or knows elsewhere, is left out.

    Clips of the manifest that no table lists are a finding as well.
    """
    known: dict[tuple[str, str], ManifestRow] = {(row.setting, row.clip_id): row for row in rows}
    kept: list[Listed] = []
    faults: list[str] = []
    for clip in clips:
        row = known.pop((clip.ref.setting, clip.name), None)
        if row is None:
            faults.append(f"it doesn't have the clip {clip.name} of the tables")
        elif row.split != clip.ref.split:
            faults.append(f"it has {clip.name} in {row.split}, the table in {clip.ref.split}")
        else:
            kept.append(_told(clip, row))
    faults += [f"no table lists its clip {name}" for _, name in known]
    return kept, [Finding("contradicting", MANIFEST, fault) for fault in faults]


def _told(clip: Listed, row: ManifestRow) -> Listed:
    ref = replace(
        clip.ref, source_id=row.source_id, categories=row.categories, sources=row.sources, subsets=row.subsets
    )
    return replace(clip, ref=ref)


def instances_path(clip: Listed) -> str:
    """Where the truth about the objects of a clip lies."""
    return f"{INSTANCES}/{clip.ref.setting}/{clip.ref.split}/{clip.name}.json"


def read_instances(
    data: bytes, path: str, seconds: int, shown: tuple[int, int], size: int
) -> tuple[InstanceTruth, ...]:
    """The objects of a clip, their masks at size × size. `shown` is (height, width) of the frames in the tree.

    Raises DataError for what is no truth of a clip of this length and these frames.
    """
    try:
        objects = json.loads(data)["objects"]
        return tuple(_object(one, seconds, shown, size) for one in objects)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, InputError) as error:
        raise DataError(
            f"the objects of a clip must be as `avs benchmark build` writes them; {path} is not ({error}): build it "
            f"again"
        ) from error


def _object(one: Mapping[str, Any], seconds: int, shown: tuple[int, int], size: int) -> InstanceTruth:
    sounding = np.array(one["sounding"], dtype=bool)
    if len(one["rle"]) != seconds or sounding.shape != (seconds,):
        raise ValueError(f"{len(one['rle'])} masks and {len(sounding)} flags for {seconds} seconds")
    if any(tuple(rle["size"]) != shown for rle in one["rle"]):
        raise ValueError(f"masks of another size than the frames, {shown[1]}×{shown[0]}")
    rles = [masks.from_row(rle["counts"].encode("ascii"), *shown) for rle in one["rle"]]
    return InstanceTruth(
        object_id=int(one["object_id"]),
        category=str(one["category"]),
        visible=np.stack([resized_mask(masks.decode(rle) > 0, size) for rle in rles]),
        sounding=sounding,
    )
