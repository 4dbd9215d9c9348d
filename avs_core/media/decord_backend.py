"""Whole plain MP4 files by decord, and the choice between the backends (docs/decisions/0002-decoders.md)."""

import importlib
from typing import Any

import numpy as np
from jaxtyping import Int64

from avs_core.errors import ConfigError
from avs_core.media.config import Backend
from avs_core.media.probe import MediaInfo
from avs_core.media.pyav_backend import Pictures, PlanError
from avs_core.media.sampling import choose_frames

DECORD_IS_FASTER: frozenset[str] = frozenset()
"""Codecs of which decord was measured to be faster than a plan. None: a plan decodes less of the same packets."""


def choose_backend(info: MediaInfo) -> Backend:
    """The backend of `backend="auto"` for a file: the fastest of those that were exact on files of its kind."""
    return "decord" if decord_is_exact(info) and info.codec in DECORD_IS_FASTER else "pyav"


def decord_is_exact(info: MediaInfo) -> bool:
    """Whether a file is of the one kind that decord gets right: plain H.264 in an MP4 that is not in fragments."""
    return "mp4" in info.container and info.codec == "h264" and info.rotation == 0 and info.n_frames is not None


def decode_with_decord(path: str, targets: Int64[np.ndarray, " n"], zero: int, pictures: Pictures) -> None:
    """Fill `pictures` from a local file whose packets have been listed in `pictures.seen`.

    decord numbers frames in the order of presentation; which number is shown when is ours to say. Raises PlanError
    when it counts other frames than the packets do (an edit list, interlaced fields), ConfigError without decord.
    """
    reader = _reader(path, *pictures.images.shape[1:3])
    shown = np.sort(np.array(pictures.seen, dtype=np.int64))
    if len(reader) != len(shown) or shown[0] != zero:
        raise PlanError("decord counts other frames than the packets do")
    chosen = choose_frames(shown, targets)
    distinct, where = np.unique(chosen, return_inverse=True)
    pictures.images[:] = reader.get_batch(distinct.tolist()).asnumpy()[where]
    pictures.pts[:] = shown[chosen]


def _reader(path: str, height: int, width: int) -> Any:
    try:
        decord = importlib.import_module("decord")
    except ImportError as error:
        raise ConfigError(
            "decoder=decord needs the decord package, which has wheels for Linux on x86-64 only: use decoder=pyav"
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord.VideoReader(path, ctx=decord.cpu(0), width=width, height=height, num_threads=1)
