"""The settings of what surrounds a job: its tracking run and its page. None of them touches the archive."""

from pydantic import BaseModel, ConfigDict, Field


class JobConfig(BaseModel):
    """Where a job tells what it did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str = Field("runs", description="Local folder of the pages, and of the MLflow store unless another is named.")
    tracking: bool = Field(True, description="Log the job to MLflow.")
    tracking_uri: str | None = Field(
        None, description="MLflow server or store [default: MLFLOW_TRACKING_URI, else SQLite in the out folder]."
    )
    experiment: str = Field("avs-segment", description="MLflow experiment.")
    report: bool = Field(True, description="Write an HTML page with mask overlays.")
    report_videos: int = Field(12, ge=1, le=200, description="Videos the page shows.")
