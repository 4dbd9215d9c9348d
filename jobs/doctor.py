"""`avs doctor`: is the cluster fit for work, and what is to be changed."""

import json as json_format
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    *,
    archive: str | None = None,
    address: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Look at every node of the cluster, and at the store, and say what to change.

    Versions, GPUs, decoders, disk, memory, object store and clocks; reading, listing and conditional writes where an
    archive is named. Exit code 0 without a problem (warnings are none), 1 with one.

    Parameters
    ----------
    archive
        A folder or s3://bucket/prefix to try; what is written there is removed again.
    address
        Ray cluster [default: RAY_ADDRESS, else a Ray of its own].
    json
        Print one JSON line instead of text.
    """
    from rich.console import Console

    from avs_core.pipelines.doctor import examine_cluster

    checks = examine_cluster(address, archive)
    problems = sum(check.state == "problem" for check in checks)
    if json:
        print(json_format.dumps({"problems": problems, "checks": [asdict(check) for check in checks]}))
        return 1 if problems else 0
    console = Console()
    for check in checks:
        console.print(f"{check.state:>7}", style=STYLES[check.state], end="  ")
        console.print(f"{check.name}, {check.where}: {check.found}", markup=False, highlight=False, soft_wrap=True)
        if check.advice:
            console.print(f"         → {check.advice}", markup=False, highlight=False, soft_wrap=True)
    console.print("fit for work" if not problems else f"{problems} problems", style="red" if problems else "green")
    return 1 if problems else 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("doctor")
