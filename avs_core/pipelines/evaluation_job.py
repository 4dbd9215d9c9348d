"""`avs evaluate` as a user runs it: measure, write the JSON and the figures, tell the tracking server."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avs_core.datasets.labelled import LabelledSet
from avs_core.evaluation.archive import evaluate_archive
from avs_core.evaluation.examine import Report
from avs_core.models.bundle import load_bundle
from avs_core.pipelines.evaluate import evaluate_model
from avs_core.pipelines.evaluate_config import EvaluateConfig
from avs_core.pipelines.provenance import provenance
from avs_core.tracking import NullRun, Tracker, finishing, resolve_model, start_run

LOG = logging.getLogger(__name__)

REPORT = "evaluation.json"


@dataclass(frozen=True)
class DoneEvaluation:
    """What was measured, and where it lies; `run_url` is None without tracking."""

    report: Report
    json: Path
    figures: tuple[Path, ...]
    run_url: str | None


def run_evaluation(model: str, data: LabelledSet, config: EvaluateConfig) -> DoneEvaluation:
    """Measure a bundle on a split. Raises what `evaluate_model` raises."""
    with _tracked(f"evaluate {model}", {"model": model, "data": data.name}, config) as tracker:
        report = evaluate_model(model, data, config)
        path = _written(report, config, tracker)
        figures = _drawn(model, report, data, config) if config.figures else ()
        for figure in figures:
            tracker.log_file(figure, f"figures/{figure.name}")
        return DoneEvaluation(report, path, figures, tracker.run_url)


def run_archive_evaluation(archive: str, run: str | None, data: LabelledSet, config: EvaluateConfig) -> DoneEvaluation:
    """Score a run of a mask archive, without a model or Ray. Raises what `evaluate_archive` raises."""
    with _tracked("evaluate archive", {"archive": archive, "run": run, "data": data.name}, config) as tracker:
        report = evaluate_archive(archive, data, config.split, run, config.limit, config.seed)
        return DoneEvaluation(report, _written(report, config, tracker), (), tracker.run_url)


def _written(report: Report, config: EvaluateConfig, tracker: Tracker) -> Path:
    """The report as JSON, before the figures are drawn: they take long, and it should not be lost with them."""
    path = Path(config.out) / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    tracker.log_metrics(report.metrics(), step=0)
    tracker.set_tags({"data_version": report.data_version})
    tracker.log_file(path, REPORT)
    return path


def _drawn(model: str, report: Report, data: LabelledSet, config: EvaluateConfig) -> tuple[Path, ...]:
    # here, because matplotlib and scikit-learn take seconds to import
    from avs_core.evaluation.drawing import draw

    bundle = load_bundle(resolve_model(model))
    without = None if config.without_audio is None else load_bundle(resolve_model(config.without_audio))
    return draw(report, bundle, data, Path(config.out) / "figures", config.limit, config.seed, without)


@contextmanager
def _tracked(name: str, about: dict[str, Any], config: EvaluateConfig) -> Iterator[Tracker]:
    """A tracking run around the block, which ends as the block ends."""
    if not config.tracking:
        yield NullRun()
        return
    with finishing(start_run(config.experiment, name, config.out, config.tracking_uri)) as tracker:
        tracker.set_tags(provenance())
        tracker.log_params({**about, "evaluate": config.model_dump(mode="json")})
        yield tracker
