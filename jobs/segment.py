"""`avs segment`: the main job. `python -m jobs.segment` does the same under `ray job submit`."""

import json as json_format
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from avs_core.pipelines.job_config import JobConfig
from avs_core.pipelines.segment_config import SegmentConfig


def segment(
    inputs: list[str],
    /,
    *,
    config: Annotated[SegmentConfig, Parameter(name="*")],
    job: Annotated[JobConfig, Parameter(name="*")] = JobConfig(),  # noqa: B008 - frozen
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Segment what sounds in videos, into a Parquet mask archive.

    Safe to interrupt and to run again: what is committed stays, and only what is missing or changed is done.
    Exit code 0 when all is done, 3 when some videos ended as dead letters, 1 when some must be run again.

    Parameters
    ----------
    inputs
        Files, directories, globs, S3 inventories (manifest.json) or manifests (.txt, .csv, .parquet), on disk or s3://.
    json
        End with one JSON line on standard output, for machines.
    """
    from avs_core.pipelines.main_job import run_main_job
    from jobs.main import exit_code
    from jobs.summary import print_summary

    done = run_main_job(inputs, config, job)
    if json:
        print(json_format.dumps(asdict(done.result)))
    else:
        print_summary(done)
    return exit_code(done.result)


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("segment")
