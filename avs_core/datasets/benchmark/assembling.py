"""What surrounds the clips: the plan first, the metadata and everything else last, the manifest after all."""

import hashlib
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version as installed
from pathlib import Path

from avs_core import storage
from avs_core.datasets.benchmark import layout
from avs_core.datasets.benchmark.card import data_card
from avs_core.datasets.benchmark.manifest import ManifestRow, from_parquet, to_parquet, with_distractors
from avs_core.datasets.benchmark.plan import Plan
from avs_core.datasets.benchmark.sheet import choose, contact_sheet
from avs_core.datasets.sources import Catalogue
from avs_core.errors import ConfigError, DataError, NotFound

_MAKERS = ("av", "numpy", "pillow", "scipy")
_DRAWN_BY = (
    "composites",
    "rendering",
    "scenes",
    "soundtrack",
    "sources",
    "benchmark.composing",
    "benchmark.encoding",
    "benchmark.layout",
    "benchmark.plan",
    "benchmark.truth",
)


def makers() -> str:
    """The libraries that decide the bytes of a clip, with their versions."""
    return ", ".join(f"{name} {installed(name)}" for name in _MAKERS)


def version_of(plan: Plan, catalogue: Catalogue) -> str:
    """16 hex digits over all that decides the bytes: plan, catalogue, the code that draws, and its libraries."""
    digest = hashlib.sha256()
    digest.update(json.dumps(asdict(plan), sort_keys=True).encode())
    digest.update(catalogue.model_dump_json().encode())
    for name in _DRAWN_BY:
        source = importlib.import_module(f"avs_core.datasets.{name}").__file__
        digest.update(Path(str(source)).read_bytes())
    digest.update(makers().encode())
    return digest.hexdigest()[:16]


def finished(out: str) -> str | None:
    """The version of the benchmark that is complete at `out`; None if there is none."""
    try:
        return from_parquet(storage.read_bytes(storage.join(out, layout.MANIFEST)))[1]
    except NotFound:
        return None


def begin(out: str, plan: Plan, version: str) -> None:
    """Mark the root as this benchmark's. Raises ConfigError if it is another's, StorageError if it can't be written."""
    path = storage.join(out, layout.PLAN)
    mine = {"version": version, "scale": plan.scale, "seed": plan.seed, "clips": len(plan.clips)}
    try:
        found = json.loads(storage.read_bytes(path))
    except NotFound:
        found = mine
    if found != mine:
        raise ConfigError(
            f"a root holds one benchmark; {storage.redacted(out)} was begun as {found}, and this is {mine}: choose "
            f"another place, or delete what is there"
        )
    storage.write_bytes(path, json.dumps(mine, sort_keys=True).encode())


def finish(out: str, plan: Plan, version: str, rows: Sequence[ManifestRow], categories: Sequence[str]) -> None:
    """Write everything that is about all clips. Raises DataError if clips are missing or sources cross splits."""
    by_id = {row.clip_id: row for row in rows}
    missing = [spec.clip_id for spec in plan.clips if spec.clip_id not in by_id]
    if missing or len(rows) != len(plan.clips):
        raise DataError(f"every clip of a plan must be composed once; {len(missing)} are missing: {missing[:3]}")
    ordered = with_distractors([by_id[spec.clip_id] for spec in plan.clips])
    manifest = to_parquet(ordered, version)
    texts = {
        layout.METADATA["s4"]: _s4_metadata(ordered),
        layout.METADATA["ms3"]: _ms3_metadata(ordered),
        layout.CATEGORIES: json.dumps(list(categories), indent=1) + "\n",
        layout.CARD: data_card(ordered, plan, version, makers()),
    }
    for name, text in texts.items():
        storage.write_bytes(storage.join(out, name), text.encode())
    storage.write_bytes(storage.join(out, layout.SHEET), contact_sheet(out, choose(ordered)))
    storage.write_bytes(storage.join(out, layout.MANIFEST), manifest)


def _s4_metadata(rows: Sequence[ManifestRow]) -> str:
    lines = [f"{row.clip_id},0,{row.categories[0]},{row.split}" for row in rows if row.setting == "s4"]
    return "\n".join(["name,start_time,category,split", *lines, ""])


def _ms3_metadata(rows: Sequence[ManifestRow]) -> str:
    return "\n".join(["video_id,split", *(f"{row.clip_id},{row.split}" for row in rows if row.setting == "ms3"), ""])
