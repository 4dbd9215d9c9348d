"""What a user brings to a recipe: data, weights, a seed."""

from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from avs_core import storage
from avs_core.audio import FrontEnd
from avs_core.datasets.labelled import LabelledSet, heard_by
from avs_core.datasets.sources import Sources
from avs_core.errors import ConfigError
from avs_core.models.bundle import read_card
from avs_core.training.job import TrainingJob

Start = Literal["vggish", "backbone", "init", "audio", "ear"]
"""The materials that a run starts from, and that not every recipe reads."""


@dataclass(frozen=True)
class Materials:
    """Picklable, so that Ray can send it to its workers. Weights are local paths or URIs.

    data      the labelled set; None = composites made on the fly, for the recipes that know them
    sources   the photographs and recordings that these are made of
    vggish    VGGish's weights, as the public PyTorch port has them
    backbone  ImageNet weights of the backbone; None = timm fetches them
    init      a bundle, or a published checkpoint, to start from
    audio     a bundle from whose audio encoder the recipe's starts, instead of being trained alone first
    ear       the name of another audio encoder than the recipe's, see avs_core.models.audio_encoders
    seed      of the weights and of the order of the clips
    steps     instead of the recipe's; epochs otherwise
    workers   processes that prepare batches, a training process
    """

    data: LabelledSet | None = None
    sources: Sources | None = None
    vggish: str | None = None
    backbone: str | None = None
    init: str | None = None
    audio: str | None = None
    ear: str | None = None
    seed: int = 0
    steps: int | None = None
    workers: int = 1

    def labelled(self, recipe: str) -> LabelledSet:
        """The data. Raises ConfigError where there are none."""
        if self.data is None:
            raise ConfigError(f"{recipe} trains on labelled clips: give it data, --data PATH-OR-URI")
        return self.data

    def refuse(self, recipe: str, *names: Start) -> None:
        """Raises ConfigError where one of these is given: the recipe does not read it, and nothing is ignored."""
        for name in names:
            if (given := getattr(self, name)) is not None:
                raise ConfigError(f"{recipe} takes no --{name}, got {storage.redacted(given)}: leave it out")

    def require_ear(self, recipe: str, audio_encoder: str) -> None:
        """Raises ConfigError where the bundle `audio` has another audio encoder than the recipe; BundleError."""
        if self.audio is None:
            return
        found = read_card(self.audio)[1].audio_encoder
        if found != audio_encoder:
            raise ConfigError(
                f"{recipe} hears with {audio_encoder}, {storage.redacted(self.audio)} with {found}: give it a bundle "
                f"that hears with {audio_encoder}, or leave out --audio"
            )

    def heard_by(self, front_end: FrontEnd) -> "Materials":
        """The same, its data as an audio encoder with that front end wants them."""
        return self if self.data is None else replace(self, data=heard_by(self.data, front_end))


@runtime_checkable
class Recipe(Protocol):
    """A named training run: what `avs train NAME` needs to know, given the materials."""

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def about(self) -> str:
        """One line for `avs train --list`."""

    @property
    def composes(self) -> bool:
        """Whether it makes composites from `materials.sources` where it gets no data."""

    def jobs(self, materials: Materials) -> tuple[TrainingJob, ...]:
        """Its phases; each starts from the chosen weights of the one before. Raises ConfigError, TrainingError."""
