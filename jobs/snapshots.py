"""`avs snapshots`: which states of an archive can be read."""

import json as json_format
from typing import Annotated

from cyclopts import Parameter
from rich.filesize import decimal

from jobs.wording import counted


def snapshots(archive: str, /, *, run: str | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """List the snapshots of a run; each can be opened: `open_archive(archive, run, snapshot=number)`.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    run
        The run key, where the archive holds several runs.
    json
        Print one JSON line a snapshot instead of a table.
    """
    from rich.console import Console
    from rich.table import Table

    from avs_core.archive.read import list_snapshots

    found = list_snapshots(archive, run).to_pylist()
    if json:
        for row in found:
            print(json_format.dumps({**row, "made": row["made"].isoformat()}))
        return 0
    table = Table("number", "made", "units", "rows", "frames", "files", "size", title=counted(len(found), "snapshot"))
    for row in found:
        made = row["made"].strftime("%Y-%m-%d %H:%M:%S")
        counts = (row["units"], row["rows"], row["frames"], row["files"])
        table.add_row(str(row["number"]), made, *map(str, counts), decimal(row["bytes"]))
    Console().print(table, markup=False)
    return 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("snapshots")
