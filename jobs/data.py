"""`avs data`: what a copy of a data set holds, and whether it is whole."""

import json as json_format
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from avs_core.datasets.avsbench.check import Report

app = App(name="data", help="Check a copy of AVSBench or of the composite benchmark.", result_action="return_value")

MOST_FINDINGS = 40


@app.command
def check(
    path: str,
    /,
    *,
    kind: Literal["auto", "s4", "ms3", "avss"] = "auto",
    split: str = "all",
    deep: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Say what is there, what is missing or broken, and how many clips each split has.

    Exit code 0 for a sound copy, 1 for a damaged one.

    Parameters
    ----------
    path
        The folder or s3://bucket/prefix that holds the metadata.
    kind
        Which data set, where there are several.
    split
        One split instead of all.
    deep
        Read and decode every file, instead of only listing them.
    json
        Print one JSON line instead of text.
    """
    from avs_core.datasets.avsbench.check import check_dataset
    from avs_core.datasets.opening import open_dataset

    report = check_dataset(open_dataset(path, kind), split, deep)
    if json:
        print(json_format.dumps(asdict(report) | {"sound": report.sound}))
    else:
        _print(report)
    return 0 if report.sound else 1


def _print(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{report.name} in {report.uri}, version {report.version}", markup=False, soft_wrap=True)
    counts = Table("split", "clips", "complete", "seconds", "labelled", "with a log-mel only")
    for one in report.splits:
        counts.add_row(one.split, *map(str, (one.clips, one.complete, one.seconds, one.labelled, one.log_mels)))
    console.print(counts)
    for finding in [*report.damage, *(one for one in report.findings if one.kind == "dirt")][:MOST_FINDINGS]:
        console.print(str(finding), style="yellow" if finding.kind == "dirt" else "red", markup=False, soft_wrap=True)
    if len(report.findings) > MOST_FINDINGS:
        console.print(f"… and {len(report.findings) - MOST_FINDINGS} more: --json prints them all", style="dim")
    looked = "every file decoded" if report.deep else "files listed, not decoded: --deep reads them all"
    verdict = "sound" if report.sound else f"damaged: {len(report.damage)} findings"
    console.print(f"{verdict} ({looked})", style="green" if report.sound else "red", markup=False, soft_wrap=True)


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("data")
