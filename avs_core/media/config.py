"""How files are decoded, and when decoding is stopped: frozen, checked values."""

from dataclasses import dataclass
from typing import Literal

from avs_core.errors import ConfigError
from avs_core.media.sampling import sound_margins

Backend = Literal["auto", "pyav", "pyav-sequential", "decord"]
BACKENDS: tuple[Backend, ...] = ("auto", "pyav", "pyav-sequential", "decord")
AUDIO_POLICIES = ("silence", "dead")
LARGEST_SIZE = 4096


@dataclass(frozen=True)
class DecodeLimits:
    """When a decoding process is stopped.

    wall_s         seconds a whole request may take
    no_progress_s  seconds that may pass without a packet read, a frame decoded or an answer of the store; a store that
                   stands still is given up earlier (`child.STORE_SHARE`), as no fault of the file's
    memory_mb      MiB that the decoding process may allocate beyond what it holds when it is idle
    max_pixels     width × height above which a file is refused before it is decoded
    max_hours      length above which a file is refused: two frames a century apart fit into a kilobyte
    """

    wall_s: float = 600.0
    no_progress_s: float = 60.0
    memory_mb: int = 4096
    max_pixels: int = 8192 * 4320
    max_hours: float = 100.0

    def __post_init__(self) -> None:
        for name in ("wall_s", "no_progress_s", "memory_mb", "max_pixels", "max_hours"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"the limit {name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class DecodeConfig:
    """How a unit becomes a clip.

    size     model input: (height, width), or one number for a square
    rate     frames looked at per second of video
    backend  "auto" lets `choose_backend` decide; "pyav-sequential" decodes every frame (the benchmark's reference)
    audio    a file without sound is taken for "silence", or is "dead"
    reach    samples (16 kHz) that the model's ear hears before and after its seconds: see avs_core.audio.FrontEnd
    """

    size: int | tuple[int, int] = 224
    rate: int = 1
    backend: Backend = "auto"
    audio: Literal["silence", "dead"] = "silence"
    reach: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not all(1 <= side <= LARGEST_SIZE for side in self.shape):
            raise ConfigError(f"the model size must lie in [1, {LARGEST_SIZE}], got {self.size}")
        if self.rate < 1:
            raise ConfigError(f"the rate must be at least 1 frame per second, got {self.rate}")
        if self.backend not in BACKENDS:
            raise ConfigError(f"the decoder must be one of {', '.join(BACKENDS)}, got {self.backend!r}")
        if self.audio not in AUDIO_POLICIES:
            raise ConfigError(f"the audio policy must be one of {', '.join(AUDIO_POLICIES)}, got {self.audio!r}")
        if min(self.reach) < 0:
            raise ConfigError(f"a reach is two numbers of samples, 0 or more, got {self.reach}")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the model's input."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def sound_margins_s(self) -> tuple[int, int]:
        """Seconds of sound before and after a unit that are decoded with it."""
        return sound_margins(self.rate, self.reach)
