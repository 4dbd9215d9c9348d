"""`avs reprocess`: the main job on a schedule. `python -m jobs.reprocess` does the same under `ray job submit`."""

import json as json_format
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from avs_core.pipelines.job_config import JobConfig
from avs_core.pipelines.schedule_config import ScheduleConfig
from avs_core.pipelines.segment_config import SegmentConfig

if TYPE_CHECKING:
    from avs_core.pipelines.reprocess import Reprocessed


def reprocess(
    inputs: list[str],
    /,
    *,
    config: Annotated[SegmentConfig, Parameter(name="*")],
    schedule: Annotated[ScheduleConfig, Parameter(name="*")] = ScheduleConfig(),  # noqa: B008 - frozen
    job: Annotated[JobConfig, Parameter(name="*")] = JobConfig(),  # noqa: B008 - frozen
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Segment what is new, changed or stale; with another model readers change over once the new run covers the videos.

    For cron: one job at a time works on an archive, and what one does not finish the next one does. SIGTERM, the
    deadline and the budget let it finish what is in work. Exit code 0 when all is done, 1 when some must be run again,
    3 when some videos ended as dead letters, 4 when another job is at work, 5 when it stopped before the end or readers
    do not get its run: it covers too little, another job took over, or a person went back from it (avs runs use).

    Parameters
    ----------
    inputs
        Files, directories, globs, S3 inventories (manifest.json) or manifests (.txt, .csv, .parquet).
    json
        End with one JSON line on standard output, for machines.
    """
    from avs_core.pipelines.reprocess import reprocess as run_scheduled
    from jobs.summary import print_scheduled

    done = run_scheduled(inputs, config, job, schedule)
    if json:
        covered = {"coverage": done.coverage.share, "lost": done.coverage.lost, "missing": done.coverage.missing}
        line = {**asdict(done.job.result), **covered}
        readers = {"current": done.current, "switched": done.switched, "overtaken": done.overtaken}
        print(json_format.dumps({**line, **readers, "withdrawn": done.withdrawn}))
    else:
        print_scheduled(done, schedule.coverage)
    return scheduled_exit_code(done)


def scheduled_exit_code(done: "Reprocessed") -> int:
    """What a scheduler may act on. A run that readers do not get outweighs dead letters: they are there every night."""
    from jobs.main import DONE, DONE_WITH_DEAD, STOPPED, exit_code

    code = exit_code(done.job.result)
    return STOPPED if code in (DONE, DONE_WITH_DEAD) and not done.shown else code


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("reprocess")
