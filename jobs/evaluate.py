"""`avs evaluate`: measure a bundle, or a mask archive, against the truth."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from avs_core.pipelines.evaluate_config import EvaluateConfig
from avs_core.pipelines.segment_config import DEFAULT_MODEL

if TYPE_CHECKING:
    from avs_core.datasets.labelled import LabelledSet
    from avs_core.pipelines.evaluation_job import DoneEvaluation

COMPOSED_CLIPS = 100
"""Clips that are composed where no data is given and no limit."""


def evaluate(
    model: str = DEFAULT_MODEL,
    data: str | None = None,
    /,
    *,
    config: Annotated[EvaluateConfig, Parameter(name="*")] = EvaluateConfig(),  # noqa: B008 - frozen
    kind: Literal["auto", "s4", "ms3", "avss"] = "auto",
    archive: str | None = None,
    run: str | None = None,
    sources: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure a bundle on a split: official and batch-independent figures, and whether it listens.

    Scoring an archive needs no model: avs evaluate DATA --archive URI. Its videos are the data set's clips, each
    named after its clip.

    Parameters
    ----------
    model
        A built-in bundle's name, a folder, a URI or models:/NAME@ALIAS.
    data
        AVSBench or a composite benchmark, on disk or s3://. Without it, held-out composites are made on the fly; their
        source packages are fetched with apt-get.
    kind
        Which part of the data.
    archive
        Score the masks of this archive instead of a model.
    run
        Which of the archive's runs, where it holds several.
    sources
        Where packages are unpacked, for composites on the fly (default: AVS_SOURCES, or ~/.cache/avs/sources).
    json
        End with one JSON line on standard output, for machines.
    """
    from avs_core.errors import ConfigError
    from avs_core.pipelines.evaluation_job import run_archive_evaluation, run_evaluation

    if archive is not None:
        if data is not None:
            raise ConfigError(f"an archive is scored without a model: avs evaluate {data} --archive {archive}")
        done = run_archive_evaluation(archive, run, _open(model, kind), config)
    else:
        opened = _composed(sources, config) if data is None else _open(data, kind)
        done = run_evaluation(model, opened, config)
    _print(done, json)
    return 0


def _open(data: str, kind: Literal["auto", "s4", "ms3", "avss"]) -> "LabelledSet":
    from avs_core.datasets.opening import open_dataset

    return open_dataset(data, kind)


def _composed(sources: Path | None, config: EvaluateConfig) -> "LabelledSet":
    from avs_core.datasets.composed import ComposedSet
    from avs_core.datasets.sources import Sources, fetch_packages

    clips = config.limit or COMPOSED_CLIPS
    return ComposedSet(Sources(root=fetch_packages(sources)), {"val": clips, "test": clips, "unseen": clips})


def _print(done: "DoneEvaluation", json: bool) -> None:
    if json:
        places = {"json": str(done.json), "figures": [str(path) for path in done.figures], "run_url": done.run_url}
        print(json_format.dumps({**done.report.metrics(), **places}))
        return
    from rich.console import Console

    from avs_core.evaluation.tables import tables

    console = Console()
    for table in tables(done.report):
        console.print(table)
    for name, clips in (("count as dark", done.report.unanswered), ("are in no figure", done.report.left_out)):
        if clips:
            console.print(f"{len(clips)} clips {name}: {', '.join(clips[:8])}{' …' if len(clips) > 8 else ''}")
    print(f"figures in {done.json}" + (f" and {done.figures[0].parent}" if done.figures else ""))
    if done.run_url:
        print(f"run: {done.run_url}")


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("evaluate")
