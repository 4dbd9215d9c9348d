"""`python -m benchmarks [NAME…]`: run all benchmarks or the named ones, print a table, write out/benchmarks.json."""

import argparse
import importlib
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row

BENCHMARKS = {
    "tpavi": "benchmarks.tpavi",
    "pvt": "benchmarks.pvt",
    "decode": "benchmarks.decode",
    "late": "benchmarks.late",
    "job": "benchmarks.job",
    "packs": "benchmarks.packs",
    "blocks": "benchmarks.blocks",
    "fit": "benchmarks.fit",
    "archive": "benchmarks.archive",
    "plan": "benchmarks.plan",
    "scale": "benchmarks.scale",
}
"""Name → module with `run() -> list[Row]`. Imported only when asked for: some need what others don't."""


def main() -> None:
    """Run, print after each benchmark, write at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory, as ratios.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks.json"), help="where the JSON goes")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    found: dict[str, list[Row]] = {}
    for name in args.names or BENCHMARKS:
        found[name] = importlib.import_module(BENCHMARKS[name]).run()
        show(name, found[name])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report(found), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    Console().print(f"written to {args.out}")


def show(name: str, rows: list[Row]) -> None:
    """One table a benchmark."""
    table = Table("case", "value", "unit", title=name, title_justify="left")
    for row in rows:
        table.add_row(row.case, f"{row.value:.4g}", row.unit)
    Console().print(table)


def report(found: dict[str, list[Row]]) -> dict[str, object]:
    """The figures and the machine they were measured on."""
    machine = {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu": platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return {"machine": machine, "benchmarks": {name: [asdict(row) for row in rows] for name, rows in found.items()}}


if __name__ == "__main__":
    main()
