"""The settings of a scheduled job: how long it may go on, what it may cost, when readers get what it made."""

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from avs_core.errors import ConfigError, StoppedEarly
from avs_core.pipelines.brake import Brake, passing

HOUR_S = 3600.0


class ScheduleConfig(BaseModel):
    """When a scheduled job ends, and when its run becomes the one that readers get."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverage: float = Field(
        0.99, ge=0, le=1, description="Share of the videos that a new run must hold before readers get it."
    )
    max_hours: float | None = Field(None, gt=0, description="Take up no more after so many hours.")
    deadline: datetime | None = Field(
        None, description="Take up no more after this time, such as 2026-11-24T06:00 (local unless it says +00:00)."
    )
    budget: float | None = Field(
        None,
        gt=0,
        description="Take up no more once this is spent: a flat --price-hour for each hour since the job began, "
        "however many nodes there are.",
    )
    price_hour: float | None = Field(
        None, gt=0, description="What an hour of the cluster costs at its full size, in any currency."
    )
    grace_s: float = Field(
        100.0, ge=0, description="After it was told to stop, a job may finish what is in work for so long, s."
    )

    @field_validator("deadline", mode="before")
    @classmethod
    def _a_date_and_a_time(cls, value: Any) -> Any:
        """A number would be taken for seconds since 1970: a year for a deadline that is over."""
        if value is None or isinstance(value, date) or re.match(r"\s*\d{4}-\d\d-\d\d", str(value)):
            return value
        raise ValueError(f"a deadline is a date and a time, such as 2026-11-24T06:00; {value} is none")

    def brake(self, now: datetime | None = None, clock: Callable[[], float] = passing) -> Brake:
        """The brake of a job that starts `now`.

        Raises `ConfigError` for a budget without a price, and `StoppedEarly` for a deadline that is over: a scheduler
        may well try again too late.
        """
        ends = {}
        if self.max_hours is not None:
            ends[f"its {self.max_hours:g} hours were over"] = self.max_hours * HOUR_S
        if self.budget is not None:
            if self.price_hour is None:
                raise ConfigError("a budget needs to know what an hour of the cluster costs: give --price-hour too")
            ends[f"its budget of {self.budget:g} was spent"] = self.budget / self.price_hour * HOUR_S
        if self.deadline is not None:
            left = (self.deadline.astimezone() - (now or datetime.now().astimezone())).total_seconds()
            if left <= 0:
                raise StoppedEarly(
                    f"nothing is taken up after a deadline, and {self.deadline} is over: nothing was done"
                )
            ends[f"its deadline {self.deadline} was reached"] = left
        why = min(ends, key=ends.__getitem__, default="")
        return Brake(ends.get(why), why, self.grace_s, clock)
