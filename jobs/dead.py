"""`avs dead`: which videos could not be done, and why."""

import json as json_format
from typing import Annotated

from cyclopts import Parameter


def dead(archive: str, /, *, run: str | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """List the dead letters of an archive: class, stage, message and file of each.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    run
        The run key, where the archive holds several runs.
    json
        Print one JSON line a dead letter instead of a table.
    """
    from rich.console import Console
    from rich.table import Table

    from avs_core.archive.read import dead_letters

    letters = dead_letters(archive, run).to_pylist()
    if json:
        for letter in letters:
            print(json_format.dumps(letter))
        return 0
    table = Table("class", "stage", "video", "message", title=f"{len(letters)} dead letters")
    for letter in letters:
        table.add_row(letter["error_class"], letter["stage"], letter["video_uri"], letter["message"])
    Console().print(table, markup=False)
    return 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("dead")
