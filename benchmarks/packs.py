"""Short clips as packs, against a block each: what Ray's cost of a block makes of thousands of them.

First what Ray alone costs: rows with the pixels of a five-second clip go through three watched stages that do nothing.
Then the whole job on short clips. Both ways in turn on one Ray, so that a ratio compares like with like.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from unittest.mock import patch

from rich.console import Console

from avs_core.archive.verify import archive_digest
from avs_core.clip import Unit, VideoRef
from avs_core.models.bundle import load_bundle
from avs_core.pipelines import flows
from avs_core.pipelines.chain import outcomes, pack_blocks, watched_chain, witness
from avs_core.pipelines.cluster import connected
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.packs import one_by_one, pack
from avs_core.pipelines.progress import Progress
from avs_core.pipelines.segment import run_record, segment
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import Row as StageRow
from avs_core.pipelines.stages import new_row
from avs_core.pipelines.watch import StagePlan
from avs_core.recipes import DEMO_CLIPS
from avs_core.tracking import NullRun
from benchmarks.measure import Row, alternately

ROWS = 1200
FEW = 4
CLIPS = 64
SECONDS = 5
PIXELS = SECONDS * 224 * 224 * 3
ROUNDS = 1


class Fill:
    """Gives the row a clip's weight."""

    def __call__(self, row: StageRow) -> StageRow:
        """As a decoder, without the work."""
        return row | {"clip": bytes(PIXELS)}


class Empty:
    """Takes it away again."""

    def __call__(self, row: StageRow) -> StageRow:
        """As a model, without the work."""
        return row | {"clip": b""}


def run() -> list[Row]:
    """Seconds with and without packs, their ratios, and whether both left the same archive."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, connected("local"):
        rows = [new_row(Unit(VideoRef(f"/{index}.mp4", 1, "f"), 0, SECONDS)) for index in range(ROWS)]
        bare = alternately(
            {
                "start": lambda: _hand_over(one_by_one(rows[:FEW])),
                "packs": lambda: _hand_over(pack(rows, 300, 1)),
                "one row a block": lambda: _hand_over(one_by_one(rows)),
            },
            ROUNDS,
        )
        archives = count()
        inputs = _clips(Path(folder) / "in")
        whole = alternately(
            {
                "packs": lambda: _job(inputs, f"{folder}/packs-{next(archives)}", pack),
                "one row a block": lambda: _job(inputs, f"{folder}/single-{next(archives)}", _single),
            },
            ROUNDS,
        )
        digests = {archive_digest(str(path)) for path in Path(folder).glob("*-*")}
    return [
        *_told(f"{ROWS} rows through 3 idle stages", bare),
        Row("the same without the start of the workers: one row a block / packs", _marginal(bare), "×"),
        *_told(f"the whole job on {CLIPS} clips of 6 s", whole),
        Row("same archive, byte for byte (1 = yes)", float(len(digests) == 1), ""),
    ]


def _told(what: str, seconds: dict[str, float]) -> Iterator[Row]:
    for name, value in seconds.items():
        yield Row(f"{what}, {name}", value, "s")
    yield Row(f"{what}: one row a block / packs", seconds["one row a block"] / seconds["packs"], "×")


def _marginal(seconds: dict[str, float]) -> float:
    """Without what a run of a few rows takes."""
    return (seconds["one row a block"] - seconds["start"]) / (seconds["packs"] - seconds["start"])


def _hand_over(packs: Iterable[list[StageRow]]) -> None:
    dataset = pack_blocks(packs)
    with witness() as seen:
        for name, kind in (("decode", Fill), ("segment", Empty), ("commit", Empty)):
            dataset = watched_chain(dataset, StagePlan(name, kind, {}), seen, 1, num_cpus=0.5)
        assert sum(1 for _ in outcomes(dataset)) in (FEW, ROWS)


def _clips(folder: Path) -> Path:
    folder.mkdir()
    clips = sorted(DEMO_CLIPS.glob("*.mp4"))
    for index in range(CLIPS):
        shutil.copy(clips[index % len(clips)], folder / f"{index:03d}.mp4")
    return folder


def _single(rows: list[StageRow], most_s: int, workers: int) -> Iterator[list[StageRow]]:
    return one_by_one(rows)


def _job(inputs: Path, archive: str, packing: Callable[..., Iterator[list[StageRow]]]) -> None:
    config = SegmentConfig(archive=archive, model="tpavi-light", decoders=1, segmenters=1)
    record = run_record(config, load_bundle(config.model))
    with patch.object(flows, "pack", packing):
        segment(find_videos([str(inputs)]), config, record, NullRun(), Progress(Console(quiet=True)))
