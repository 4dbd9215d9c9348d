"""The settings of the main job: one frozen value, from flags, a YAML file or code.

How videos are looked at stands alone: a bundle that MLflow asks looks in the same way, with no archive to write.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from avs_core import storage
from avs_core.errors import ConfigError
from avs_core.media.config import DecodeConfig, DecodeLimits
from avs_core.pipelines.pool_config import PoolConfig
from avs_core.pipelines.units import WINDOW_S

Side = Annotated[int, Field(ge=1, le=16_384)]
"""Pixels."""

DEFAULT_MODEL = "instances-light"
"""The built-in bundle that is used where none is named."""


class LookConfig(BaseModel):
    """How videos are looked at: all that decides their rows beside the model, wherever the rows go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: int = Field(1, ge=1, le=60, description="Frames looked at per second of video.")
    mask_size: tuple[Side, Side] | None = Field(
        None, description="Height and width of the masks [default: the source's]."
    )
    threshold: float | None = Field(None, gt=0, lt=1, description="Mask probability threshold [default: the bundle's].")
    audio: Literal["silence", "dead"] = Field("silence", description="What a video without sound is taken for.")
    decoder: Literal["auto", "pyav", "decord"] = Field("auto", description="Decoding backend.")
    unit_s: int = Field(
        300, ge=WINDOW_S, multiple_of=WINDOW_S, description="Longest piece of a video one worker takes, s, at rate 1."
    )
    decode_wall_s: float = Field(600.0, gt=0, description="Decoding a unit may take this long, s.")
    decode_stall_s: float = Field(60.0, gt=0, description="Decoding may stand still this long, s.")
    decode_memory_mb: int = Field(4096, ge=256, description="Memory of a decoding process, MB.")
    max_pixels: int = Field(8192 * 4320, ge=1, description="Largest frame that is decoded, pixels.")
    max_video_hours: float = Field(100.0, gt=0, description="Longest video that is segmented, hours.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")

    @property
    def unit_length_s(self) -> int:
        """Seconds of a unit, so that its frames fit in memory at any rate: `unit_s` divided by the rate."""
        return max(WINDOW_S, self.unit_s // self.rate // WINDOW_S * WINDOW_S)

    def check_windows(self, name: str, window_s: int) -> None:
        """Raises `ConfigError` when units would split the windows of model `name`, `window_s` seconds each."""
        if self.unit_length_s % window_s:
            raise ConfigError(
                f"units must hold whole windows: {name} sees {window_s} s at a time, and a unit at rate "
                f"{self.rate} has {self.unit_length_s} s: choose another unit_s"
            )

    def decode_config(self, size: int, reach: tuple[int, int] = (0, 0)) -> DecodeConfig:
        """How a unit is decoded for a model of this input size whose ear has this reach (avs_core.audio.FrontEnd)."""
        return DecodeConfig(size=size, rate=self.rate, backend=self.decoder, audio=self.audio, reach=reach)

    def decode_limits(self) -> DecodeLimits:
        """When a decoding process is stopped."""
        return DecodeLimits(
            wall_s=self.decode_wall_s,
            no_progress_s=self.decode_stall_s,
            memory_mb=self.decode_memory_mb,
            max_pixels=self.max_pixels,
            max_hours=self.max_video_hours,
        )


class PlaceConfig(BaseModel):
    """What the rows come from and where they go."""

    archive: str = Field(description="Where the mask archive is, or will be: a folder or s3://bucket/prefix.")
    model: str = Field(DEFAULT_MODEL, description="A built-in bundle's name, a bundle folder, or models:/name@alias.")

    @field_validator("archive")
    @classmethod
    def _wherever_it_is_opened(cls, archive: str) -> str:
        """Its canonical form: workers of a Ray that was started elsewhere have another working directory."""
        return storage.normalise(archive)


class SegmentConfig(PoolConfig, LookConfig, PlaceConfig):  # fields of the last base come first, also in --help
    """Everything that decides what `avs segment` does."""

    max_dead_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="The job fails when more of its videos than this are dead: in the end, and after a round.",
    )
    address: str | None = Field(None, description="Ray cluster [default: RAY_ADDRESS, else a Ray of its own].")
    lost_node_s: float = Field(
        900.0, gt=0, description="The job may stand still this long while its cluster misses a node it had, s."
    )

    def pool_config(self) -> PoolConfig:
        """The pools as they are asked for: memory is set aside for all that a decoding process may take."""
        decode = self.resources.decode
        if decode.memory_mb is None:
            decode = decode.model_copy(update={"memory_mb": self.decode_memory_mb})
        return PoolConfig(
            decoders=self.decoders,
            segmenters=self.segmenters,
            committers=self.committers,
            resources=self.resources.model_copy(update={"decode": decode}),
            grow=self.grow,
        )
