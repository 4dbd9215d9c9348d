"""`avs verify`: every commit of an archive against its files."""

import json as json_format
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter


def verify(archive: str, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Check every commit against its files: presence, size, hash, schema, row counts, masks.

    Exit code 0 when everything holds, 1 when something does not.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix.
    json
        Print one JSON line instead of text.
    """
    from avs_core.archive.verify import verify as verify_archive

    report = verify_archive(archive)
    if json:
        print(json_format.dumps(asdict(report)))
    else:
        for line in report.lines():
            print(line)
    return 1 if report.problems else 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("verify")
