"""What a job prints for a person: where things are, and a table of what was found."""

from rich.console import Console
from rich.table import Table

from avs_core.pipelines.main_job import DoneJob
from avs_core.pipelines.reprocess import Reprocessed
from jobs.wording import counted

MOST_ROWS = 40


def print_summary(done: DoneJob) -> None:
    """Print the table of what was found, the places to look at, and which run readers get if it is another one."""
    _print_found(done)
    if done.shown != done.result.run_key:
        print(
            f"readers still get run {done.shown}; avs runs use {done.result.archive} {done.result.run_key} changes that"
        )


def _print_found(done: DoneJob) -> None:
    console = Console()
    result = done.result
    console.print(_found(done), soft_wrap=False, markup=False, emoji=False)
    if done.result.videos > MOST_ROWS:
        console.print(f"… and {counted(result.videos - MOST_ROWS, 'more video')}", style="dim")
    places = {"archive": result.archive, "run": result.run_key, "MLflow run": done.run_url, "page": done.page}
    for name, place in places.items():
        if place is not None:
            console.print(f"{name:>10}  {place}", soft_wrap=True, markup=False, highlight=False)
    now = (
        f"{result.segmented} segmented now: {result.video_seconds:.0f} s of video in {result.seconds:.1f} s, "
        f"{counted(result.frames, 'frame')}, {counted(result.instances, 'instance')}"
    )
    if not result.pending:
        now = "nothing was left to segment"
    console.print(
        f"{counted(result.videos, 'video')}, {result.dead} dead; {now}",
        style="yellow" if result.failed or result.dead else "green",
        soft_wrap=True,
    )
    if result.touched:
        console.print(f"{counted(result.touched, 'video')} written again with the same content")
    if result.left:
        console.print(
            f"stopped because {result.stopped}; {counted(result.left, 'video')} left for the next run", style="yellow"
        )
    if result.failed:
        console.print(
            f"{counted(result.failed, 'unit')} could not be finished: run the same command again", style="red"
        )


def print_scheduled(done: Reprocessed, wanted: float) -> None:
    """The same, and which run readers get."""
    _print_found(done.job)
    run, covered = done.job.result.run_key, done.coverage
    held = f"run {run} holds {covered.share:.1%} of the videos"
    if done.switched:
        print(f"{held}: readers get it from now on (avs runs lists the others)")
    elif done.current == run:
        print(f"{held}; it is the one that readers get")
    elif done.overtaken:
        print(f"{held}; another job took the lease over, and what readers get is its choice: {done.current}")
    elif done.withdrawn:
        print(f"{held}; avs runs use took readers away from it, and only avs runs use brings them back: {done.current}")
    else:
        lost = ""
        if covered.lost:
            lost = (
                f"; {covered.lost} that readers have now are dead letters in it: take those that are gone off the list"
            )
        if covered.missing:
            lost += (
                f"; {covered.missing} that readers have now were not among the inputs: name them too, or avs runs use"
            )
        print(f"{held}, {wanted:.1%} are wanted{lost}: readers still get {done.current}")


def _found(done: DoneJob) -> Table:
    table = Table("video", "frames", "sounding", "mean area", "mean score", "note")
    for row in done.findings[:MOST_ROWS]:
        table.add_row(
            row.name,
            str(row.frames),
            str(row.sounding),
            f"{row.area_share:.1%}" if row.sounding else "–",
            f"{row.score:.2f}" if row.sounding else "–",
            row.note,
        )
    return table
