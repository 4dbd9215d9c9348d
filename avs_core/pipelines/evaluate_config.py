"""The settings of an evaluation."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EvaluateConfig(BaseModel):
    """What is measured, where it runs and where it tells of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str = Field("test", description="Which split of the data.")
    controls: bool = Field(True, description="Ask the model again under other sounds: does it listen?")
    figures: bool = Field(True, description="Draw the figures.")
    without_audio: str | None = Field(None, description="A bundle trained without audio, beside this one in the t-SNE.")
    limit: int | None = Field(None, ge=1, description="At most so many clips, spread evenly over the split.")
    threshold: float | None = Field(None, gt=0, lt=1, description="On the probability [default: the bundle's].")
    seed: int = Field(0, ge=0, description="Of noises, of which other clip is heard, and of the bootstrap.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model computes.")
    address: str | None = Field(None, description="Ray cluster [default: RAY_ADDRESS, else one of its own].")
    workers: int | None = Field(
        None, ge=0, description="Models at work; 0: one, in this process, without Ray [default: by the cluster]."
    )
    out: str = Field("runs/evaluation", description="Local folder of the JSON and the figures.")
    tracking: bool = Field(True, description="Log the evaluation to MLflow.")
    tracking_uri: str | None = Field(
        None, description="MLflow server or store [default: MLFLOW_TRACKING_URI, else SQLite in the out folder]."
    )
    experiment: str = Field("avs-evaluate", description="MLflow experiment.")
