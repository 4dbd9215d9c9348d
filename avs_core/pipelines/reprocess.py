"""Run again on a schedule: what is new, changed or stale is segmented; readers change over when enough of it is there.

One job at a time holds a lease on the archive. With another model, threshold or setting the videos go into a new run
beside the one that readers get; once it covers them, it becomes the current one in one step. A job that has to stop
(SIGTERM, its time, its budget) finishes what is in work and gives the lease back; the next one goes on from there.
"""

import logging
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from avs_core.archive.current import current, make_current
from avs_core.archive.lease import Times, leased
from avs_core.pipelines.brake import Brake
from avs_core.pipelines.coverage import Coverage, coverage
from avs_core.pipelines.job_config import JobConfig
from avs_core.pipelines.main_job import DoneJob, run_main_job
from avs_core.pipelines.schedule_config import ScheduleConfig
from avs_core.pipelines.segment_config import SegmentConfig

LOG = logging.getLogger(__name__)

LEASE = "reprocess"


@dataclass(frozen=True)
class Reprocessed:
    """What a scheduled job did, and which run readers get after it."""

    job: DoneJob
    coverage: Coverage
    current: str
    switched: bool


def reprocess(
    inputs: Iterable[str],
    config: SegmentConfig,
    job: JobConfig,
    schedule: ScheduleConfig,
    times: Times | None = None,
) -> Reprocessed:
    """Segment what is left to do of the inputs, then let readers have it if it is enough.

    Raises `LeaseHeld` while another job is at work, and what `run_main_job` raises.
    """
    brake = schedule.brake()
    what = f"reprocess {', '.join(inputs := list(inputs))}"
    with (
        leased(config.archive, LEASE, what, lambda: brake.press("another job took the lease over"), times),
        stopped_by_sigterm(brake),
    ):
        done = run_main_job(inputs, config, job, brake)
        covered = coverage(config.archive, done.result.run_key, done.videos, schedule.coverage)
        switched = covered.share >= schedule.coverage and _switch(config.archive, done.result.run_key)
    chosen = current(config.archive)
    return Reprocessed(done, covered, chosen.run_key if chosen else done.result.run_key, switched)


def _switch(archive: str, run_key: str) -> bool:
    """Whether readers got another run before."""
    chosen = current(archive)
    make_current(archive, run_key)
    return chosen is not None and chosen.run_key != run_key


@contextmanager
def stopped_by_sigterm(brake: Brake) -> Iterator[None]:
    """The first SIGTERM presses the brake, a second one interrupts. In threads other than the main one, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def told(number: int, frame: FrameType | None) -> None:
        if brake.reason:
            raise KeyboardInterrupt
        brake.press("it was told to (SIGTERM)")

    before = signal.signal(signal.SIGTERM, told)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
