"""What every data set gives, whatever its layout: clips with their sound and the truth about them."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from avs_core.audio import Alignment

Setting = Literal["s4", "ms3", "avss"]
"""What is labelled: one mask a clip in training (S4), one a second (MS3), classes (AVSS). See MISSION of each paper."""


@dataclass(frozen=True)
class ClipRef:
    """A clip of a data set before anything of it is read.

    clip_id     unique within its data set
    source_id   the video (or the set of pictures and recordings) that it was cut from; leaks are found by it
    seconds     T, labelled or not
    labelled    the seconds that have a mask in this split
    categories  what sounds somewhere in it, as far as the data set says; () where it doesn't
    sources     how many things sound in it, None where the data set doesn't say
    subsets     named groups that figures are reported for, such as "silent-distractor"
    """

    clip_id: str
    setting: Setting
    split: str
    source_id: str
    seconds: int
    labelled: tuple[int, ...]
    categories: tuple[str, ...] = ()
    sources: int | None = None
    subsets: tuple[str, ...] = ()


@dataclass(frozen=True)
class InstanceTruth:
    """One object of a clip, sounding or not.

    visible   (T, H, W) its pixels; sounding  (T,) whether it is heard in second t
    """

    object_id: int
    category: str
    visible: Bool[np.ndarray, "T H W"]
    sounding: Bool[np.ndarray, " T"]


@dataclass(frozen=True)
class LabelledClip:
    """A clip, decoded.

    frames     (T, H, W, 3) uint8 RGB, shown at 0.9375 s of each second, squeezed to a square
    log_mel    (T, 1, 96, 64) float32, see avs_core.audio
    waveform   16 kHz mono in [-1, 1]; None where the data set holds nothing but log-mels
    masks      (T, H, W) what sounds; False in seconds without a label
    labelled   (T,) which seconds have a label
    labels     (T, H, W) class of each pixel, 0 = background; None where the truth is binary
    instances  every object with its own mask, where the data set has them
    """

    ref: ClipRef
    frames: UInt8[np.ndarray, "T H W 3"]
    log_mel: Float32[np.ndarray, "T 1 96 64"]
    waveform: Float32[np.ndarray, " n"] | None
    masks: Bool[np.ndarray, "T H W"]
    labelled: Bool[np.ndarray, " T"]
    labels: Int64[np.ndarray, "T H W"] | None = None
    instances: tuple[InstanceTruth, ...] = ()


@runtime_checkable
class LabelledSet(Protocol):
    """A data set on disk or S3 that training and evaluation read. Picklable: Ray sends it to its workers."""

    @property
    def name(self) -> str:
        """For messages, cards and runs."""

    @property
    def setting(self) -> Setting:
        """Which objective and which figures are official."""

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the classes; for AVSS the index is the label's value, and 0 is the background."""

    @property
    def version(self) -> str:
        """Hash of its metadata: what results say they were measured on."""

    def splits(self) -> tuple[str, ...]:
        """The named splits that have clips."""

    def clips(self, split: str) -> tuple[ClipRef, ...]:
        """In file order. Raises ConfigError for an unknown split, TrainingError for one without clips."""

    def load(self, ref: ClipRef, size: int, alignment: Alignment = "official") -> LabelledClip:
        """Read a clip, frames and masks at size × size. Raises DataError for what is missing or broken."""
