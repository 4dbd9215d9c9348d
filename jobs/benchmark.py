"""`avs benchmark`: build the composite benchmark on disk or S3."""

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

app = App(name="benchmark", help="Build the composite benchmark: AVSBench's layout, from photographs and recordings.")


@app.command
def build(
    *,
    out: str,
    scale: Literal["small", "full"] = "small",
    seed: int = 0,
    address: str | None = None,
    workers: int | None = None,
    sources: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Compose all clips, with masks of every object, a data card and a contact sheet.

    Safe to interrupt and to run again: clips that are there are kept, and the manifest comes last. The source packages
    (410 MB) are fetched with apt-get where they are missing.

    Parameters
    ----------
    out
        Root of the benchmark: a folder or s3://bucket/prefix.
    scale
        small: 460 clips, minutes. full: 5400 clips, hours of CPU.
    seed
        Of all clips: the same seed gives the same bytes.
    address
        Ray cluster to compose on (default: RAY_ADDRESS; else processes of this machine).
    workers
        Processes when there is no cluster (default: one a CPU).
    sources
        Where packages are unpacked (default: AVS_SOURCES, or ~/.cache/avs/sources).
    json
        End with one JSON line on standard output, for machines.
    """
    from avs_core.datasets.benchmark.plan import make_plan
    from avs_core.pipelines.benchmark import SourceSet, build_benchmark

    done = build_benchmark(make_plan(scale, seed), out, SourceSet(sources), address, workers)
    if json:
        print(json_format.dumps(asdict(done)))
    else:
        print(f"{done.clips} clips in {done.out}, version {done.version}, {done.seconds:.0f} s")
    return 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("benchmark")
