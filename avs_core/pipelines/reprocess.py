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

from avs_core.archive.current import current, left_by_a_person, make_current
from avs_core.archive.lease import REPROCESS, Lease, Times, leased, shortened
from avs_core.errors import LeaseHeld, StoppedEarly
from avs_core.pipelines.brake import Brake
from avs_core.pipelines.coverage import Coverage, coverage
from avs_core.pipelines.job_config import JobConfig
from avs_core.pipelines.main_job import DoneJob, run_main_job
from avs_core.pipelines.schedule_config import ScheduleConfig
from avs_core.pipelines.segment_config import SegmentConfig

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reprocessed:
    """What a scheduled job did, and which run readers get after it.

    switched   readers got another run before
    overtaken  it covered enough, but another job had taken the lease over: what readers get is that one's choice
    withdrawn  it covers enough, but a person took readers away from it (`avs runs use`), and no job undoes that
    """

    job: DoneJob
    coverage: Coverage
    current: str
    switched: bool = False
    overtaken: bool = False
    withdrawn: bool = False

    @property
    def shown(self) -> bool:
        """Whether readers get the run of this job."""
        return self.current == self.job.result.run_key


class _Withdrawn(Exception):
    """A person took readers away from the run."""


def reprocess(
    inputs: Iterable[str],
    config: SegmentConfig,
    job: JobConfig,
    schedule: ScheduleConfig,
    times: Times | None = None,
) -> Reprocessed:
    """Segment what is left to do of the inputs, then let readers have it if it is enough.

    Raises `LeaseHeld` while another job is at work, `StoppedEarly` where the grace after a stop was not enough, and
    what `run_main_job` raises.
    """
    brake = schedule.brake()
    what = shortened(f"reprocess {', '.join(inputs := list(inputs))}")
    with (
        leased(config.archive, REPROCESS, what, lambda: brake.press("another job took the lease over"), times) as lease,
        stopped_by_sigterm(brake),
        _interrupted_by(brake, schedule.grace_s),
    ):
        done = run_main_job(inputs, config, job, brake)
        covered = coverage(config.archive, done.result.run_key, done.videos, schedule.coverage)
        if covered.share >= schedule.coverage:
            return _switched(done, covered, lease)
    return Reprocessed(done, covered, _shown(done))


def _switched(done: DoneJob, covered: Coverage, lease: Lease) -> Reprocessed:
    """Let readers have the run, unless the job slept and another one has the lease by now: it may know a newer run."""
    before = _shown(done)

    def check() -> None:  # after the look at what is current: a choice that comes later is not undone
        lease.check()
        if left_by_a_person(done.result.archive, done.result.run_key):
            raise _Withdrawn

    try:
        make_current(done.result.archive, done.result.run_key, check)
    except LeaseHeld as held:
        LOG.warning("readers are not changed over, another job took the lease: %s", held)
        return Reprocessed(done, covered, _shown(done), overtaken=True)
    except _Withdrawn:
        return Reprocessed(done, covered, _shown(done), withdrawn=True)
    return Reprocessed(done, covered, done.result.run_key, switched=before != done.result.run_key)


def _shown(done: DoneJob) -> str:
    """The run that readers get; where nobody chose, that of the job."""
    chosen = current(done.result.archive)
    return chosen.run_key if chosen else done.result.run_key


@contextmanager
def _interrupted_by(brake: Brake, grace_s: float) -> Iterator[None]:
    """Tells what the brake interrupted from what a person did. Raises `StoppedEarly` for the former."""
    try:
        yield
    except KeyboardInterrupt:
        if not brake.gave_up:
            raise
        raise StoppedEarly(
            f"a job that has to stop may finish what is in work for {grace_s:g} s (--grace-s), and that was not "
            f"enough; it stopped because {brake.reason}: what was committed stays, the same command goes on from there"
        ) from None


@contextmanager
def stopped_by_sigterm(brake: Brake) -> Iterator[None]:
    """The first SIGTERM presses the brake, a second one interrupts. In threads other than the main one, nothing.

    The first one is no second one because something else had pressed the brake before: time, a lost lease.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        brake.press("it was told to (SIGTERM)")

    before = signal.signal(signal.SIGTERM, told)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
