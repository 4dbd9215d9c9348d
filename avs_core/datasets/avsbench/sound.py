"""The sound of a clip: its wav, or where there is none the log-mel that was made of it."""

import numpy as np
from jaxtyping import Float32

from avs_core import storage
from avs_core.audio import Alignment, window_examples
from avs_core.clip import AUDIO_RATE
from avs_core.datasets.avsbench.layout import ClipFiles
from avs_core.datasets.avsbench.log_mels import read_log_mel
from avs_core.datasets.sources import decode_sound
from avs_core.errors import DataError, NotFound, UnreadableMedia

_OPEN_ENDED = (0, 0xFFFFFFFF)
"""Sizes in a header that was written before the length was known."""


def read_sound(
    root: str, files: ClipFiles, seconds: int, alignment: Alignment
) -> tuple[Float32[np.ndarray, "T 1 96 64"], Float32[np.ndarray, " n"] | None]:
    """The log-mel of T = `seconds` seconds, and the waveform it was made of (16 kHz mono), None for a given log-mel.

    Raises DataError for damaged files, where neither is there, and where only a log-mel is there and another alignment
    is asked for: log-mels have the official one.
    """
    try:
        data = storage.read_bytes(storage.join(root, files.wav))
    except NotFound:
        return _given_log_mel(root, files, seconds, alignment), None
    waveform = decode_wav(data, files.wav)[: seconds * AUDIO_RATE]
    return window_examples(waveform, seconds, alignment).numpy(), waveform


def decode_wav(data: bytes, path: str) -> Float32[np.ndarray, " n"]:
    """A sound file at 16 kHz, mono. Raises DataError for one that is damaged, empty or cut off."""
    declared = int.from_bytes(data[4:8], "little")
    if data[:4] == b"RIFF" and declared not in _OPEN_ENDED and declared + 8 > len(data) + declared % 2:
        raise DataError(
            f"a sound must be whole; {path} has {len(data)} of the {declared + 8} bytes that its header tells: "
            f"copy it again"
        )
    try:
        waveform = decode_sound(data, path)
    except (UnreadableMedia, ValueError) as error:  # ValueError: a header without a single sample
        raise DataError(f"a sound must be decodable; {path} is not ({error}): copy it again") from error
    if not waveform.size or not np.isfinite(waveform).all():
        raise DataError(f"a sound must have samples that are numbers; {path} has none, or others: copy it again")
    return waveform


def _given_log_mel(root: str, files: ClipFiles, seconds: int, alignment: Alignment) -> Float32[np.ndarray, "T 1 96 64"]:
    if files.log_mel is not None:
        try:
            data = storage.read_bytes(storage.join(root, files.log_mel))
        except NotFound:
            pass  # both are missing: that is one error, below
        else:
            if alignment != "official":
                raise DataError(
                    f"a log-mel has the official alignment; {alignment!r} was asked for, and there is no {files.wav}: "
                    f"copy the wav, or ask for the official alignment"
                )
            return read_log_mel(data, files.log_mel, seconds)
    places = files.wav if files.log_mel is None else f"{files.wav} or {files.log_mel}"
    raise DataError(f"a clip must have a sound; there is no {places} in {storage.redacted(root)}: copy it again")
