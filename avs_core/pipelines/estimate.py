"""What is left to do, in hours and money: the sizes of a plan's files times what earlier jobs measured."""

import math
from dataclasses import dataclass

from avs_core.archive.stats import Rates
from avs_core.errors import InputError
from avs_core.pipelines.plan import Plan, State
from avs_core.pipelines.schedule_config import HOUR_S


@dataclass(frozen=True)
class Estimate:
    """Hours of video, of the clock on a cluster like the earlier ones, of its CPUs and GPUs, and of these at work.

    `bytes` are those of whole files, `video_hours` what is left of them; `cost` is that of all the hours, at work or
    not, if prices are known.
    """

    videos: int
    bytes: int
    video_hours: float
    hours: float
    cpu_hours: float
    gpu_hours: float
    busy_cpu_hours: float
    busy_gpu_hours: float
    cost: float | None


def check_prices(*prices: float | None) -> None:
    """Raises InputError for one that is below 0 or no number."""
    for price in prices:
        if price is not None and not 0 <= price < math.inf:
            raise InputError(f"the price of an hour must be 0 or more, got {price}")


def estimate(plan: Plan, rates: Rates, cpu_hour: float | None = None, gpu_hour: float | None = None) -> Estimate:
    """What the pending videos will take, at prices of an hour of a CPU and of a GPU.

    `rates` are of other videos: half as many bytes a second, and it is wrong by two. Raises as
    `check_prices`.
    """
    check_prices(cpu_hour, gpu_hour)
    pending = plan.of(*(state for state in State if state.to_do and state != State.TOUCHED))
    size = sum(video.size for video in pending)
    left = sum(video.size * plan.left.get(video.uri, 1.0) for video in pending)
    video_hours = left * rates.video_s_per_byte / HOUR_S
    cpu, gpu = video_hours * rates.cpu_s, video_hours * rates.gpu_s
    priced = cpu_hour is not None or gpu_hour is not None
    return Estimate(
        videos=len(pending),
        bytes=size,
        video_hours=video_hours,
        hours=video_hours * rates.wall_s,
        cpu_hours=cpu,
        gpu_hours=gpu,
        busy_cpu_hours=video_hours * rates.busy_cpu_s,
        busy_gpu_hours=video_hours * rates.busy_gpu_s,
        cost=cpu * (cpu_hour or 0) + gpu * (gpu_hour or 0) if priced else None,
    )
