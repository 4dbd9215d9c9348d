"""`avs gc`: remove what no snapshot and no commit needs."""

import json as json_format
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.filesize import decimal

from jobs.wording import counted


def gc(
    archive: str,
    /,
    *,
    older_than_days: float = 7.0,
    keep: int = 1,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Remove unit files that were merged, files of replaced videos and dead writers, abandoned units, old snapshots.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    older_than_days
        Only what is older, and only what no reader that opened the archive since then needs. Longer than any job.
    keep
        So many snapshots stay readable, the newest ones.
    dry_run
        Only say what would be removed.
    json
        Print one JSON line instead of text.
    """
    from avs_core.archive.gc import DAY_S
    from avs_core.archive.gc import gc as collect

    report = collect(archive, keep, older_than_days * DAY_S, dry_run)
    if json:
        print(json_format.dumps(asdict(report)))
        return 0
    for path in report.removed:
        print(f"{'would remove' if dry_run else 'removed'} {path}")
    print(
        f"{report.archive}: {counted(len(report.removed), 'file')} {'to remove' if dry_run else 'removed'} "
        f"({decimal(report.removed_bytes)}); {counted(report.kept_files, 'file')} and "
        f"{counted(report.kept_snapshots, 'snapshot')} stay"
    )
    return 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("gc")
