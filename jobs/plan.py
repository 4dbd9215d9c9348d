"""`avs plan`: what is left to do, and what it will take."""

import json as json_format
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.filesize import decimal

from avs_core.pipelines.segment_config import SegmentConfig
from jobs.wording import counted

if TYPE_CHECKING:
    from avs_core.pipelines.estimate import Estimate
    from avs_core.pipelines.plan import Plan


def plan(
    inputs: list[str],
    /,
    *,
    config: Annotated[SegmentConfig, Parameter(name="*")],
    out: str | None = None,
    compare: bool = True,
    deleted: bool = False,
    tracking_uri: str | None = None,
    price_cpu_hour: float | None = None,
    price_gpu_hour: float | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Say of each video whether it is new, changed, touched, stale, in progress, done or dead; nothing is done.

    The same flags as for `avs segment` name the run. What it will take is estimated from the jobs that wrote to the
    archive before.

    Parameters
    ----------
    inputs
        Files, directories, globs, S3 inventories (manifest.json) or manifests (.txt, .csv, .parquet).
    out
        Write the plan there as Parquet, on disk or s3://, a row a video; it is a manifest too, of all but the deleted
        ones.
    compare
        Read files that were written again, to tell those that changed from those that were touched.
    deleted
        Look also for videos of the archive that are gone; asks the store for each that the inputs do not name.
    tracking_uri
        MLflow server or store of a models:/ model [default: MLFLOW_TRACKING_URI, else SQLite in runs/].
    price_cpu_hour
        What an hour of one CPU costs, in any currency; the cluster's count as long as a job lasts, at work or not.
    price_gpu_hour
        What an hour of one GPU costs.
    json
        Print one JSON line instead of text.
    """
    from avs_core.archive.schema import run_key
    from avs_core.archive.stats import rates
    from avs_core.models.bundle import load_bundle
    from avs_core.pipelines.estimate import check_prices, estimate
    from avs_core.pipelines.inputs import find_videos
    from avs_core.pipelines.plan import compare_content, plan_found, with_deleted
    from avs_core.pipelines.segment import run_record
    from avs_core.tracking import resolve_model

    check_prices(price_cpu_hour, price_gpu_hour)
    key = run_key(run_record(config, load_bundle(resolve_model(config.model, tracking_uri))))
    made = plan_found(find_videos(inputs), config.archive, key)
    made = compare_content(made, config.archive, key) if compare else made
    made = with_deleted(made, config.archive) if deleted else made
    measured = rates(config.archive, key)
    expected = None if measured is None else estimate(made, measured, price_cpu_hour, price_gpu_hour)
    if out is not None:
        made.write(out)
    if json:
        counts = {str(state): count for state, count in made.counts.items()}
        line = {"run_key": key, "videos": len(made.videos), "states": counts}
        print(json_format.dumps({**line, "estimate": expected and asdict(expected)}))
    else:
        _print(made, key, expected, out)
    return 0


def _print(made: "Plan", key: str, expected: "Estimate | None", out: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    sizes = made.sizes
    console.print(f"{counted(len(made.videos), 'video')}, run {key}", highlight=False)
    table = Table("state", "videos", "size")
    for state, count in made.counts.items():
        if count:
            table.add_row(state, str(count), decimal(sizes[state]), style="bold" if state.to_do else "")
    console.print(table)
    if expected is None:
        console.print("what it will take is not known: no job has measured anything in this archive yet")
    elif expected.videos:
        cost = "" if expected.cost is None else f", costs about {expected.cost:.2f}"
        console.print(
            f"to do: {counted(expected.videos, 'video')}, about {_spoken(expected.video_hours)} of video; "
            f"{_spoken(expected.hours)} on a cluster as before, "
            f"{_spoken(expected.cpu_hours)} of its CPUs ({_spoken(expected.busy_cpu_hours)} at work), "
            f"{_spoken(expected.gpu_hours)} of its GPUs ({_spoken(expected.busy_gpu_hours)} at work){cost}",
            soft_wrap=True,
        )
    if out is not None:
        console.print(f"plan: {out}", markup=False, highlight=False, soft_wrap=True)


def _spoken(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("plan")
