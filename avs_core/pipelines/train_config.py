"""Where training jobs run, and who is told."""

import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

PARTS = "Parts a worker computes its share of a batch in; not for losses that pair the clips of a batch."
REPEATABLE = "Only algorithms that repeat bit for bit on a GPU too, some slower; there two-stage-light needs Triton."


class TrainConfig(BaseModel):
    """Where jobs are trained, and who is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    out: str = Field(description="Folder of checkpoints and results: disk or s3://, the same for all workers.")
    engine: Literal["auto", "alone", "torchrun", "ray"] = Field(
        "auto", description="auto: torchrun where it started this, ray where workers or an address are given."
    )
    workers: str | None = Field(None, description="Ray workers: N, or MIN:MAX for as many as there is room for.")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs that a worker asks Ray for.")
    address: str | None = Field(None, description="Ray cluster [default: RAY_ADDRESS, else one on this machine].")
    max_failures: int = Field(3, ge=0, description="How often Ray starts the workers again after one has died.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model computes.")
    accumulate: int | None = Field(None, ge=1, description=PARTS)
    precision: Literal["fp32", "bf16"] | None = Field(None, description="Instead of the recipe's.")
    batch_norm: Literal["free", "sync", "frozen"] | None = Field(None, description="Instead of the recipe's.")
    deterministic: bool = Field(False, description=REPEATABLE)
    tracking: bool = Field(True, description="Log to MLflow.")
    tracking_uri: str | None = Field(
        None, description="MLflow server or store [default: MLFLOW_TRACKING_URI, else SQLite in the out folder]."
    )
    experiment: str = Field("avs-train", description="MLflow experiment.")
    register_as: str | None = Field(
        None, alias="register", description="NAME@ALIAS: make a version of that registered model of the bundle."
    )

    @field_validator("register_as")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        name, at, alias = (value or "name@alias").partition("@")
        if not (name and at and alias):
            raise ValueError(f"a registered model must be NAME@ALIAS, got {value}")
        return value

    @field_validator("workers")
    @classmethod
    def _counted(cls, value: str | None) -> str | None:
        if value is not None:
            worker_count(value)
        return value

    def of_loop(self) -> dict[str, Any]:
        """What is said of the loop, to replace what the recipe says."""
        said = {"accumulate": self.accumulate, "precision": self.precision, "batch_norm": self.batch_norm}
        return {name: value for name, value in said.items() if value is not None} | (
            {"deterministic": True} if self.deterministic else {}
        )

    def chosen_engine(self) -> Literal["alone", "torchrun", "ray"]:
        """What `auto` comes to."""
        from avs_core.training.engine import started_by_torchrun  # here, because importing torch takes seconds

        if self.engine != "auto":
            return self.engine
        if started_by_torchrun():
            return "torchrun"
        return "ray" if self.workers or self.address or os.environ.get("RAY_ADDRESS") else "alone"


def worker_count(text: str) -> int | tuple[int, int]:
    """What N or MIN:MAX says. Raises ValueError."""
    numbers = [int(part) if part.isdigit() else 0 for part in text.split(":")]
    if len(numbers) > 2 or min(numbers) < 1 or numbers != sorted(numbers):
        raise ValueError(f"workers must be N or MIN:MAX with 1 ≤ MIN ≤ MAX, got {text}")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
