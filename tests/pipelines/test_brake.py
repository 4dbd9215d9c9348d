"""The brake of a job, without Ray: what presses it and what it says."""

import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from avs_core.errors import ConfigError, StoppedEarly
from avs_core.pipelines.brake import Brake
from avs_core.pipelines.reprocess import stopped_by_sigterm
from avs_core.pipelines.schedule_config import ScheduleConfig


class Clock:
    """A clock that is set by hand, s."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_first_reason_counts(clock: Clock) -> None:
    brake = Brake(clock=clock)
    assert brake.reason == ""
    brake.press("it rained")
    brake.press("it snowed")
    assert brake.reason == "it rained"
    clock.now = 1e9
    assert not brake.out_of_patience


def test_time_presses_it_and_patience_ends(clock: Clock) -> None:
    brake = Brake(10.0, "time", grace_s=5.0, clock=clock)
    clock.now = 9.0
    assert not brake.reason
    clock.now = 10.0
    assert brake.reason == "time"
    clock.now = 14.0
    assert not brake.out_of_patience
    clock.now = 16.0
    assert brake.out_of_patience


@pytest.mark.parametrize(
    ("settings", "seconds", "why"),
    [
        ({"max_hours": 2.0}, 7200.0, "its 2 hours were over"),
        ({"budget": 5.0, "price_hour": 10.0, "max_hours": 2.0}, 1800.0, "its budget of 5 was spent"),
        ({"deadline": datetime(2026, 1, 1, 1, tzinfo=UTC), "max_hours": 2.0}, 3600.0, "its deadline"),
    ],
)
def test_the_earliest_limit_counts(settings: dict[str, object], seconds: float, why: str, clock: Clock) -> None:
    brake = ScheduleConfig.model_validate(settings).brake(datetime(2026, 1, 1, tzinfo=UTC), clock)
    clock.now = seconds - 1
    assert not brake.reason
    clock.now = seconds
    assert brake.reason.startswith(why)


def test_a_budget_needs_a_price_and_a_deadline_a_future() -> None:
    with pytest.raises(ConfigError, match="--price-hour"):
        ScheduleConfig(budget=1.0).brake()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(StoppedEarly, match="is over: nothing was done"):
        ScheduleConfig(deadline=now - timedelta(seconds=1)).brake(now)
    assert ScheduleConfig().brake().reason == ""


def test_a_deadline_does_not_wait_for_a_machine_that_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = 0.0
    clocks = {time.CLOCK_BOOTTIME: lambda: 100.0 + slept, time.CLOCK_MONOTONIC: lambda: 100.0}
    monkeypatch.setattr(time, "clock_gettime", lambda clock: clocks[clock]())
    brake = ScheduleConfig(max_hours=1.0).brake()
    assert not brake.reason
    slept = 3 * 3600.0
    assert brake.reason


def test_the_first_sigterm_lets_it_finish_though_its_time_was_up_before(clock: Clock) -> None:
    brake = Brake(0.0, "its deadline was reached", clock=clock)
    assert brake.reason
    with stopped_by_sigterm(brake):
        assert [sigterm_interrupts(), sigterm_interrupts()] == [False, True]
    assert brake.reason == "its deadline was reached"


def sigterm_interrupts() -> bool:
    """Send one to this process."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        return True
    return False


def test_sigterm_brakes_and_the_second_one_interrupts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    brake = Brake()
    with stopped_by_sigterm(brake):
        os.kill(os.getpid(), signal.SIGTERM)
        assert "SIGTERM" in brake.reason
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
