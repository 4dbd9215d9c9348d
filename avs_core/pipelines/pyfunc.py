"""A bundle as a function of MLflow: videos in, the rows of their instances out. No Ray, no archive.

    frame = mlflow.pyfunc.load_model("models:/tpavi@best").predict(pandas.DataFrame({"video_uri": ["talk.mp4"]}))

Registered models name this module and its `_load_pyfunc`: both must stay where they are. MLflow is not imported here,
nor pandas: who calls has both.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import pyarrow as pa
import torch

from avs_core.archive.numbering import Numbering
from avs_core.archive.schema import ROW_SCHEMA, within_video
from avs_core.clip import Unit, VideoRef
from avs_core.errors import ConfigError, InputError, MediaError, TooManyDeadLetters
from avs_core.media.decode import GuardedDecoder
from avs_core.models.audio_encoders import find_audio_encoder
from avs_core.pipelines.inputs import listed_video
from avs_core.pipelines.model_stage import SegmentUnit
from avs_core.pipelines.segment_config import LookConfig
from avs_core.pipelines.stages import with_retries
from avs_core.pipelines.units import cut, unprobed
from avs_core.tracking import PythonFunction

T = TypeVar("T")

DISTRIBUTION = "avs-on-ray"
VIDEO_URI = "video_uri"
INPUTS = pa.schema([pa.field(VIDEO_URI, pa.string(), nullable=False)])
OUTPUTS = pa.schema(
    [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in ROW_SCHEMA]
)
"""Rows as in an archive, with plain text for its dictionaries."""


def python_function() -> PythonFunction:
    """What MLflow is told about every bundle that is registered."""
    return PythonFunction(
        loader=__name__,
        inputs=INPUTS,
        outputs=OUTPUTS,
        example=({VIDEO_URI: "s3://bucket/films/film.mp4"},),
        settings=LookConfig().model_dump(mode="json"),
        requirements=(_requirement(),),
    )


def _load_pyfunc(folder: str, settings: Mapping[str, Any] | None = None) -> "VideoFunction":
    """Called by `mlflow.pyfunc.load_model`. `settings` are those of a LookConfig.

    Raises `BundleError` for a folder that is no bundle, `ConfigError` for settings that can't be.
    """
    try:
        look = LookConfig.model_validate(settings or {})
    except ValueError as fault:
        raise ConfigError(f"model_config must hold what avs segment takes: {fault}") from fault
    return VideoFunction(folder, look)


class VideoFunction:
    """A bundle that answers for whole videos. May be asked by several threads: they take turns."""

    def __init__(self, folder: str, look: LookConfig) -> None:
        """Loads the bundle and checks the settings. Raises `BundleError`, `ConfigError`."""
        self._look = look
        # what "auto" means must be known here: on a CPU the number of threads decides the last bits
        self._device = "cuda" if look.device != "cpu" and torch.cuda.is_available() else "cpu"
        if look.device == "cuda" and self._device == "cpu":
            raise ConfigError("device cuda needs a GPU, and this machine has none: use device cpu or auto")
        with _summing_in_order(self._device):
            self._segment = SegmentUnit(folder, self._device, look.threshold, look.mask_size)
        look.check_windows(self._segment.made.name, self._segment.made.window_s)
        self._turn = threading.Lock()

    def predict(self, videos: Any) -> Any:
        """A DataFrame with a row for each instance in each frame, from one whose column `video_uri` names videos.

        The rows are those that `avs segment` would put into an archive (`ROW_SCHEMA`; `counts` is the COCO RLE of the
        mask), video after video, each video once. A frame that was looked at and holds nothing has no row. So a video
        that can't be read would look like one in which nothing sounds: there are rows for all of the videos or for
        none. Raises `InputError` for a table without the column or with an entry that is no path or URI,
        `TooManyDeadLetters` that names every video that is at fault, `StorageError` for a store that is away.
        """
        refs = _videos(videos)
        made, limits = self._segment.made, self._look.decode_limits()
        config = self._look.decode_config(made.size, find_audio_encoder(made.audio_encoder).front_end.reach)
        with self._turn, _summing_in_order(self._device), GuardedDecoder(config, limits) as decoder:
            cuts = _of_each([unprobed(ref) for ref in refs], lambda unit: self._cut(unit.video, decoder))
            units = [unit for of_video in cuts for unit in of_video]
            sightings = _of_each(units, lambda unit: self._sightings(unit, decoder))
        return pa.concat_tables([OUTPUTS.empty_table(), *_numbered(units, sightings)]).to_pandas()

    def _cut(self, video: VideoRef, decoder: GuardedDecoder) -> list[Unit]:
        """The units of which the main job would make rows, as it would cut them."""
        seconds = with_retries(lambda: decoder.probe(video.uri)).seconds
        return cut(video, seconds, self._look.unit_length_s)

    def _sightings(self, unit: Unit, decoder: GuardedDecoder) -> tuple[pa.Table, int | None]:
        """What it saw, and how many frames are first shown in it."""
        clip = with_retries(lambda: decoder.decode(unit))
        return self._segment.tables(unit, clip)[0], clip.shown


def _numbered(units: Sequence[Unit], sightings: Sequence[tuple[pa.Table, int | None]]) -> list[pa.Table]:
    """The rows of each unit; those of a video come in order."""
    numbering = {unit.video.uri: Numbering() for unit in units}
    before, found = Counter[str](), []
    for unit, (table, shown) in zip(units, sightings, strict=True):
        uri = unit.video.uri
        rows = within_video(numbering[uri].number(table), None if shown is None else before[uri])
        found.append(rows.cast(OUTPUTS))
        before[uri] += shown or 0  # a file's container tells for all of its units, or for none
    return found


def _videos(table: Any) -> list[VideoRef]:
    """The videos in a DataFrame's column, each once, in its order."""
    columns = [str(name) for name in getattr(table, "columns", ())]
    if VIDEO_URI not in columns:
        raise InputError(
            f"videos must come as a DataFrame with a column {VIDEO_URI}; "
            f"got a {type(table).__name__} with {', '.join(columns) or 'no columns'}"
        )
    entries = list(table[VIDEO_URI])
    wrong = [entry for entry in entries if not isinstance(entry, str) or not entry]
    if wrong:
        raise InputError(f"{VIDEO_URI} must hold paths and URIs; {len(wrong)} of {len(entries)} are not: {wrong[0]!r}")
    return [*{ref.uri: ref for ref in map(listed_video, entries)}.values()]


def _of_each(units: Sequence[Unit], act: Callable[[Unit], T]) -> list[T]:
    """What `act` gives for each; files at fault are gathered, so that one error names them all."""
    done, faults = list[T](), dict[str, MediaError]()
    for unit in units:
        try:
            done.append(act(unit))
        except MediaError as fault:
            faults.setdefault(unit.video.uri, fault)
    if faults:
        told = "; ".join(f"{uri}: {fault.dead_class}: {fault}" for uri, fault in faults.items())
        raise TooManyDeadLetters(
            f"every video of a prediction must be readable, {len(faults)} of {len({u.video.uri for u in units})} "
            f"are not: leave them out, or use avs segment, which goes on with the others. {told}"
        )
    return done


@contextmanager
def _summing_in_order(device: str) -> Iterator[None]:
    """One thread on a CPU, as in the main job, so that sums are taken in one order; the caller's number afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device == "cpu" else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _requirement() -> str:
    """This package for pip, in this version; a checkout that nobody installed has none."""
    try:
        return f"{DISTRIBUTION}=={version(DISTRIBUTION)}"
    except PackageNotFoundError:
        return DISTRIBUTION
