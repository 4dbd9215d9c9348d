"""How many workers each stage gets, and what each asks Ray for: one frozen value. None of it touches the archive."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

GPU_PARTS = 10_000
"""Ray counts in ten-thousandths."""


def _whole_or_shared(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise ValueError(f"workers share one GPU or take whole ones, so above 1 it must be a whole number, got {gpus}")
    return gpus


Cpus = Annotated[float, Field(ge=0.01)]
Gpus = Annotated[float, Field(ge=0.01), AfterValidator(_whole_or_shared)]
Memory = Annotated[int, Field(ge=1)]
"""MiB."""


class DecodeResources(BaseModel):
    """What a worker that probes and decodes asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: Cpus = Field(0.5, description="CPUs of a decoding worker.")
    memory_mb: int | None = Field(
        None,
        ge=0,
        description="Memory set aside for a decoding worker, MB; 0: none [default: all that decoding may take].",
    )


class SegmentResources(BaseModel):
    """What a worker that holds the model asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: Cpus = Field(0.75, description="CPUs of a model's worker.")
    gpus: Gpus = Field(1.0, description="GPUs of a model's worker, where it has any; 0.5: two share one.")
    memory_mb: Memory | None = Field(
        None, description="Memory set aside for a model's worker, MB [default: not asked for]."
    )


class CommitResources(BaseModel):
    """What a worker that writes to the archive asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: Cpus = Field(0.25, description="CPUs of a committing worker.")
    memory_mb: Memory | None = Field(
        None, description="Memory set aside for a committing worker, MB [default: not asked for]."
    )


class Resources(BaseModel):
    """What one worker of each stage asks for, on a cluster that has enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decode: DecodeResources = DecodeResources()
    segment: SegmentResources = SegmentResources()
    commit: CommitResources = CommitResources()


class PoolConfig(BaseModel):
    """The pools of a job: numbers that are not given follow the size of the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoders: int | None = Field(
        None, ge=1, description="Decoding workers [default: from the cluster's CPUs and memory]."
    )
    segmenters: int | None = Field(
        None, ge=1, description="Model workers [default: as many as the GPUs hold, or half of the CPUs]."
    )
    committers: int | None = Field(None, ge=1, description="Committing workers [default: one for four decoding].")
    resources: Resources = Resources()
    grow: bool = Field(False, description="The cluster scales itself: ask for more than it has now.")
