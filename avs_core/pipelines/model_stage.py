"""The stage that needs a model: clips in, tables of instances and frames out. See `stages` for what a stage is."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import torch

from avs_core import masks
from avs_core.archive.schema import FrameRow, frame_table, sighting_table
from avs_core.clip import Clip, Instance, Unit
from avs_core.errors import MediaError
from avs_core.models.bundle import load_bundle
from avs_core.models.segmenter import FramePrediction, ObjectMask, open_segmenter
from avs_core.pipelines import wire
from avs_core.pipelines.stages import OK, STOPPED, UNKNOWN, Row, Stop, dead_row, failed_row, never, waited
from avs_core.tracking import resolve_model

LOG = logging.getLogger(__name__)

DEVICE_LOST = 71
"""Exit status of a worker that ended with its GPU."""

Die = Callable[[BaseException], None]
"""What a process does about its lost GPU."""

_FULL = re.compile(r"CUDA error: out of memory|_ALLOC_FAILED")
_LOST = re.compile(
    r"illegal memory access|illegal instruction|misaligned address|invalid program counter|hardware stack error"
    r"|uncorrectable|unspecified launch failure|device-side assert|launch timed out|unknown error|_EXECUTION_FAILED"
)
"""What CUDA says where its context is broken for good ("sticky" errors), and its libraries where a kernel failed."""


def lacks_memory(fault: BaseException) -> bool:
    """Whether the device was full: what comes later may fit."""
    full = isinstance(fault, RuntimeError) and _FULL.search(str(fault)) is not None
    return full or isinstance(fault, torch.OutOfMemoryError)


def device_lost(fault: BaseException) -> bool:
    """Whether no call to its GPU works in this process any more, and another process may have better luck.

    Told by the text: PyTorch raises AcceleratorError or RuntimeError, and for what no other process can mend, such as a
    GPU that its kernels were not built for, the same.
    """
    by_cuda = isinstance(fault, RuntimeError) and re.search(r"CUDA error|cuDNN error", str(fault)) is not None
    return by_cuda and _LOST.search(str(fault)) is not None


def end_process(fault: BaseException) -> None:
    """End this process at once, so that its unit is a suspect and another process goes on with a CUDA of its own."""
    LOG.critical("the GPU is lost to this process, which ends: %s", fault)
    os._exit(DEVICE_LOST)


class SegmentUnit:
    """Clip → sightings and frame rows. Masks leave this stage as RLE, never as pixels.

    `made` is the config of its bundle. A `models:/…` is fetched from `registry`, else from where the environment says.
    `die` is called when the GPU is lost; without it, in a process that others use too, such an error is raised.
    """

    def __init__(
        self,
        model: str,
        device: str,
        threshold: float | None,
        mask_size: tuple[int, int] | None,
        stop: Stop = never,
        registry: str | None = None,
        die: Die | None = None,
    ) -> None:
        bundle = load_bundle(resolve_model(model, registry))
        self.made = bundle.config
        if device == "cpu":
            torch.set_num_threads(1)  # sums are then taken in one order, on every machine
        self._die = die
        with self._ending_with_device():
            self._segmenter = open_segmenter(bundle, device, threshold)
        self._mask_size = mask_size
        self._stop = stop

    def __call__(self, row: Row) -> Row:
        """Fill `rows` and `frames`, drop `clip`."""
        if row["status"] != OK:
            return row
        if self._stop():
            return row | {"status": STOPPED, "clip": b""}
        started, wait_s = time.perf_counter(), waited(row)
        unit, clip = wire.unit_from_text(row["unit"]), wire.clip_from_bytes(row["clip"])
        try:
            with self._ending_with_device():
                instances, frames = self.tables(unit, clip)
        except MediaError as fault:
            return dead_row(row, "segment", fault)
        except RuntimeError as fault:
            if lacks_memory(fault):
                return failed_row(row, "segment", fault)
            raise
        return row | {
            "clip": b"",
            "rows": wire.table_to_bytes(instances),
            "frames": wire.table_to_bytes(frames),
            "flags": ",".join(clip.flags),
            "shown": UNKNOWN if clip.shown is None else clip.shown,
            "n_frames": frames.num_rows,
            "n_instances": instances.num_rows,
            "segment_s": time.perf_counter() - started,
            "segment_wait_s": wait_s,
            "ready_at": time.time(),
        }

    @contextmanager
    def _ending_with_device(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as fault:
            if self._die and device_lost(fault):
                self._die(fault)
            raise

    def tables(self, unit: Unit, clip: Clip) -> tuple[pa.Table, pa.Table]:
        """What the unit saw (`SIGHTING_SCHEMA`) and its frames (`FRAME_SCHEMA`). Raises NonFiniteOutput."""
        size = self._mask_size or (clip.height, clip.width)
        frames = [_frame_row(clip, unit, found) for found in self._segmenter.segment(clip, unit.start_s, size)]
        return sighting_table(unit.video, frames), frame_table(unit.video, frames)


def _frame_row(clip: Clip, unit: Unit, found: FramePrediction) -> FrameRow:
    place = found.second - unit.start_s, found.phase
    return FrameRow(
        second=found.second,
        phase=found.phase,
        frame_index=int(clip.frame_index[place]),
        frame_time_us=int(clip.frame_time_us[place]),
        height=clip.height,
        width=clip.width,
        has_audio="no_audio" not in clip.flags,
        flags=clip.flags,
        instances=tuple(map(_instance, found.masks)),
    )


def _instance(found: ObjectMask) -> Instance:
    rle = masks.encode(found.mask)
    height, width = rle["size"]
    return Instance(
        object_id=found.object_id,
        counts=rle["counts"],
        height=height,
        width=width,
        area=masks.area(rle),
        bbox=masks.bbox(rle),
        score=found.score,
        sounding=found.sounding,
        category=found.category,
        category_score=found.category_score,
        audio_score=found.audio_score,
    )
