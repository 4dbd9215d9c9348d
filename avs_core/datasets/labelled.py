"""What every data set gives, whatever its layout: clips with their sound and the truth about them."""

from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from avs_core.audio import LOG_MEL, Alignment, FrontEnd
from avs_core.errors import DataError

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
    sound      (T, …) float32, an example a second from `front_end`; log-mels where nothing else is said
    waveform   16 kHz mono in [-1, 1]; None where the data set holds nothing but log-mels
    masks      (T, H, W) what sounds; False in seconds without a label
    labelled   (T,) which seconds have a label
    labels     (T, H, W) class of each pixel, 0 = background; None where the truth is binary
    instances  every object with its own mask, none where nothing is to be seen; None where the data set has no objects
    """

    ref: ClipRef
    frames: UInt8[np.ndarray, "T H W 3"]
    sound: Float32[np.ndarray, "T ..."]
    waveform: Float32[np.ndarray, " n"] | None
    masks: Bool[np.ndarray, "T H W"]
    labelled: Bool[np.ndarray, " T"]
    labels: Int64[np.ndarray, "T H W"] | None = None
    instances: tuple[InstanceTruth, ...] | None = None
    front_end: FrontEnd = LOG_MEL


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


@dataclass(frozen=True)
class HeardSet:
    """A data set for an audio encoder that is fed something else than log-mels: their sound is made by `front_end`."""

    data: LabelledSet
    front_end: FrontEnd

    @property
    def name(self) -> str:
        """See LabelledSet."""
        return self.data.name

    @property
    def setting(self) -> Setting:
        """See LabelledSet."""
        return self.data.setting

    @property
    def categories(self) -> tuple[str, ...]:
        """See LabelledSet."""
        return self.data.categories

    @property
    def version(self) -> str:
        """See LabelledSet."""
        return self.data.version

    def splits(self) -> tuple[str, ...]:
        """See LabelledSet."""
        return self.data.splits()

    def clips(self, split: str) -> tuple[ClipRef, ...]:
        """See LabelledSet."""
        return self.data.clips(split)

    def load(self, ref: ClipRef, size: int, alignment: Alignment = "official") -> LabelledClip:
        """See LabelledSet. Raises DataError too for a clip that has a log-mel and no waveform."""
        clip = self.data.load(ref, size, alignment)
        if clip.waveform is None:
            raise DataError(
                f"this audio encoder is fed by {self.front_end}, which needs the sound itself: clip {ref.clip_id} of "
                f"{self.name} has a log-mel and no wav; get its wav, or use an encoder that is fed with log-mels"
            )
        sound = self.front_end.examples(clip.waveform, len(clip.frames), alignment).numpy()
        return replace(clip, sound=sound, front_end=self.front_end)


def heard_by(data: LabelledSet, front_end: FrontEnd) -> LabelledSet:
    """The data set as an audio encoder with that front end wants it."""
    return data if front_end == LOG_MEL else HeardSet(data, front_end)
