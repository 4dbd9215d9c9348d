"""`avs status`: how an archive stands."""

from typing import Annotated

from cyclopts import Parameter

from jobs.wording import counted


def status(archive: str, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Say how far each run of an archive is, which one readers get, what the last job took and who is at work.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    json
        Print one JSON line instead of text.
    """
    from avs_core.archive.standing import standing

    found = standing(archive)
    if json:
        print(found.model_dump_json())
        return 0
    for run in found.runs:
        print(
            f"{run.run_key} ({run.model}){', current' if run.current else ''}: "
            f"{counted(run.done, 'version')} of videos done, {run.dead} dead, {run.in_progress} in progress"
        )
        if run.last_job is not None:
            job = run.last_job
            print(
                f"  last job {job.started:%Y-%m-%d %H:%M} UTC: {counted(job.videos, 'video')}, "
                f"{job.video_seconds:.0f} s of video in {job.seconds:.0f} s, {counted(job.decoders, 'decoder')}, "
                f"{counted(job.segmenters, 'segmenter')}, {counted(job.gpus, 'GPU')}"
            )
    if found.at_work is not None:
        by = found.at_work
        print(f"at work: {by.what} (process {by.pid} on {by.host}), unless it died")
    return 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("status")
