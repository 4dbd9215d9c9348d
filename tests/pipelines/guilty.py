"""A job with units that kill their worker.

Its driver is `python -m tests.pipelines.guilty STAGE INPUTS ARCHIVE [SETTINGS]`.

What they do stands in the names of the files: "guilty" kills always, "once" only the first worker that has it, as a
neighbour that eats the memory would; "slow" takes its time; "hanging" keeps whoever opens it. `STAGE` is the class in
the place of the model's, `SETTINGS` what is not as usual, as JSON.
"""

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from avs_core import masks
from avs_core.archive.schema import FrameRow, frame_table, sighting_table
from avs_core.clip import Clip, Instance, Unit
from avs_core.pipelines import wire
from avs_core.pipelines.stages import OK, CommitUnit, DecodeUnit, Row

MODEL = "tpavi-light"
SLOW_S = 1.0
PATIENCE_S = 60.0


class Peaceful:
    """In the place of the model's stage, without its weight: everything brighter than the frame's mean sounds."""

    def __init__(self, **settings: object) -> None:
        """What the model's stage gets counts for nothing here."""

    def __call__(self, row: Row) -> Row:
        """As the model's stage."""
        if row["status"] != OK:
            return row
        unit, clip = wire.unit_from_text(row["unit"]), wire.clip_from_bytes(row["clip"])
        frames = [_looked_at(clip, unit, second) for second in range(unit.stop_s - unit.start_s)]
        tables = {"rows": sighting_table(unit.video, frames), "frames": frame_table(unit.video, frames)}
        done = {name: wire.table_to_bytes(table) for name, table in tables.items()}
        return row | done | {"clip": b"", "shown": clip.shown, "n_frames": len(frames), "n_instances": len(frames)}


class Killing(Peaceful):
    """The same in a process that some units kill."""

    def __call__(self, row: Row) -> Row:
        """As the stage, where it lives."""
        path = Path(wire.unit_from_text(row["unit"]).video.uri)
        killed = path.with_suffix(".killed")
        if row["status"] == OK and ("guilty" in path.name or ("once" in path.name and not killed.exists())):
            with killed.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow" in path.name:
            time.sleep(SLOW_S)
        return super().__call__(row)


class Leisurely(DecodeUnit):
    """In the place of the decoding stage: goes on with the second unit once the stage after it is at work."""

    def __call__(self, row: Row) -> Row:
        """As the stage."""
        unit, deadline = wire.unit_from_text(row["unit"]), time.monotonic() + PATIENCE_S
        while unit.index == 1 and not _times(unit.video.uri, 0).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(SLOW_S)
        return super().__call__(row)


class Watched(Peaceful):
    """Takes its time; writes down when a unit was decoded, and when it was here."""

    def __call__(self, row: Row) -> Row:
        """As the stage."""
        here = time.time()
        time.sleep(SLOW_S)
        unit, found = wire.unit_from_text(row["unit"]), super().__call__(row)
        times = {"decoded": [row["ready_at"] - row["decode_s"], row["ready_at"]], "segmented": [here, time.time()]}
        _times(unit.video.uri, unit.index).write_text(json.dumps(times))
        return found


class Stillborn(Peaceful):
    """Never gets as far as a unit."""

    def __init__(self, **settings: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Staging(CommitUnit):
    """In the place of the commit stage: leaves what publishers leave who die before their first commit."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._writer.publish = lambda unit: None  # type: ignore[method-assign]


def _times(uri: str, index: int) -> Path:
    """Where `Watched` writes."""
    return Path(f"{uri}.{index}.times")


def _looked_at(clip: Clip, unit: Unit, second: int) -> FrameRow:
    grey = clip.frames[second, 0].mean(axis=2)
    rle = masks.encode((grey > grey.mean()).astype(np.uint8))
    height, width = rle["size"]
    found = Instance(0, rle["counts"], height, width, masks.area(rle), masks.bbox(rle), score=1.0)
    return FrameRow(
        second=unit.start_s + second,
        phase=0,
        frame_index=int(clip.frame_index[second, 0]),
        frame_time_us=int(clip.frame_time_us[second, 0]),
        height=height,
        width=width,
        has_audio=True,
        flags=(),
        instances=(found,),
    )


def main(inputs: str, archive: str, stage: type, **settings: Any) -> None:
    """The main job with that stage in the model's place; its result goes to standard output."""
    from rich.console import Console

    from avs_core.models.bundle import load_bundle
    from avs_core.pipelines import flows, rounds, totals
    from avs_core.pipelines.inputs import find_videos
    from avs_core.pipelines.progress import Progress
    from avs_core.pipelines.segment import run_record, segment
    from avs_core.pipelines.segment_config import SegmentConfig
    from avs_core.tracking import NullRun

    flows.SegmentUnit = stage  # type: ignore[misc, assignment]  # the stand-in
    if settings.pop("leisurely", False):
        flows.DecodeUnit = Leisurely  # type: ignore[misc]
    if settings.pop("staging", False):
        flows.CommitUnit = Staging  # type: ignore[misc]
    rounds.FIRST_VIDEOS = settings.pop("first_videos", rounds.FIRST_VIDEOS)
    totals.JUDGED_EVERY = settings.pop("judged_every", totals.JUDGED_EVERY)
    totals.JUDGED_FROM = settings.pop("judged_from", totals.JUDGED_FROM)
    usual = {"address": "local", "decoders": 1, "segmenters": 1}
    config = SegmentConfig(archive=archive, model=MODEL, **{**usual, **settings})
    record = run_record(config, load_bundle(config.model))
    videos = find_videos([inputs])
    for hanging in Path(inputs).glob("*hanging*"):  # now that it is listed
        hanging.unlink()
        os.mkfifo(hanging)
    result = segment(videos, config, record, NullRun(), Progress(Console(quiet=True)))
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    # by the name that workers know the classes by, not as a part of __main__
    from tests.pipelines import guilty

    guilty.main(sys.argv[2], sys.argv[3], getattr(guilty, sys.argv[1]), **json.loads((sys.argv[4:] or ["{}"])[0]))
