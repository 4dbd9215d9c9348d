"""`avs demo`: the main job on the clips that come with the package, with the built-in model."""

from pathlib import Path


def demo(*, out: Path = Path("runs/demo")) -> int:
    """Segment the demo clips, and say where the archive, the MLflow run and the page are.

    Parameters
    ----------
    out
        Folder for the archive, the MLflow store and the page.
    """
    from avs_core.pipelines.job_config import JobConfig
    from avs_core.pipelines.main_job import run_main_job
    from avs_core.pipelines.segment_config import SegmentConfig
    from avs_core.recipes import DEMO_CLIPS
    from jobs.main import exit_code
    from jobs.summary import print_summary

    done = run_main_job(
        [str(DEMO_CLIPS)],
        SegmentConfig(archive=str(out.absolute() / "archive")),
        JobConfig(out=str(out), experiment="avs-demo"),
    )
    print_summary(done)
    return exit_code(done.result)


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("demo")
