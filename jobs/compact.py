"""`avs compact`: small unit files into few large ones."""

import json as json_format
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.filesize import decimal

from jobs.wording import counted


def compact(
    archive: str,
    /,
    *,
    run: str | None = None,
    target_mb: int = 256,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Merge the files of finished videos and publish a snapshot; readers see the same rows before, meanwhile and after.

    Nothing is removed: `avs gc` does that. Interrupted or run twice, it ends in the same files.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    run
        The run key, where the archive holds several runs.
    target_mb
        Size of a merged file, 10⁶ bytes. Files below half of it are merged again.
    json
        Print one JSON line instead of text.
    """
    from avs_core.archive.compact import compact as compact_archive

    done = compact_archive(archive, run, target_mb * 1_000_000)
    if json:
        print(json_format.dumps(asdict(done)))
    else:
        print(
            f"{done.archive}: {counted(done.units, 'unit')} taken up, {counted(done.files_read, 'file')} read, "
            f"{done.files_written} written ({decimal(done.bytes_written)}); "
            f"snapshot {done.snapshot} of run {done.run_key}"
        )
    return 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("compact")
