"""`avs runs`: the runs of an archive, and which of them readers get."""

import json as json_format
from typing import Annotated

from cyclopts import App, Parameter
from rich.filesize import decimal

from jobs.wording import counted

app = App(name="runs", help="The runs of an archive: list them, choose the one that readers get, remove one.")


@app.command(name="list")
def list_runs(archive: str, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """List the runs of an archive: what is in each, and which one readers get.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    json
        Print one JSON line a run instead of a table.
    """
    from rich.console import Console
    from rich.table import Column, Table

    from avs_core.archive.standing import standing

    found = standing(archive).runs
    if json:
        for run in found:
            print(json_format.dumps(run.model_dump(mode="json")))
        return 0
    names = [Column("run", no_wrap=True), Column("model", overflow="fold")]
    table = Table("", *names, "threshold", "done", "dead", "in progress")
    for run in found:
        counts = map(str, (run.done, run.dead, run.in_progress))
        table.add_row("*" if run.current else "", run.run_key, run.model, f"{run.thresholds.get('mask')}", *counts)
    Console().print(table, markup=False)
    return 0


@app.command
def use(archive: str, run: str, /) -> int:
    """Make a run the one that readers get who name none.

    A scheduled job does not go back to the run that is left in this way; it goes on to a newer one.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    run
        Its run key.
    """
    from avs_core.archive.current import make_current

    choice = make_current(archive, run, by="person")
    print(f"{run} is current" + (f", {choice.before} was" if choice.before else ""))
    return 0


@app.command
def remove(archive: str, run: str, /, *, dry_run: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Remove a run with all its files; the one that readers get can't be removed.

    Exit code 4, and nothing is removed, while a scheduled job is at work: it may be filling the run. One that died
    is waited for for a minute.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    run
        Its run key.
    dry_run
        Only say how much would go.
    """
    from avs_core.archive.removal import remove_run

    gone = remove_run(archive, run, dry_run)
    print(f"{run}: {counted(gone.files, 'file')}, {decimal(gone.bytes)} {'would be removed' if dry_run else 'removed'}")
    return 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("runs")
