"""Evaluation on Ray Data: a row a clip, a pool of models, small results back; or in this process, with equal figures.

A clip's result depends on the clip, the model and the seed alone, and the report on the results in file order, so
neither the number of workers nor a restart of one changes a digit on the same kind of device.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pydantic import TypeAdapter
from ray.data import ActorPoolStrategy

from avs_core import errors
from avs_core.datasets.labelled import ClipRef, LabelledSet
from avs_core.errors import AvsError
from avs_core.evaluation.examine import ClipResult, Examiner, Report, chosen, make_report
from avs_core.evaluation.predict import bundle_candidate
from avs_core.models.bundle import load_bundle
from avs_core.pipelines.chain import Row, chain, one_row_blocks, outcomes
from avs_core.pipelines.cluster import connected
from avs_core.pipelines.evaluate_config import EvaluateConfig
from avs_core.pipelines.pool_config import PoolConfig
from avs_core.pipelines.pools import size_pools
from avs_core.tracking import resolve_model

LOG = logging.getLogger(__name__)

_RESULT = TypeAdapter(ClipResult)
_TOLD_EVERY = 50


class ExamineClip:
    """The stage: the number of a clip in, its result as JSON out. Loads the bundle once."""

    def __init__(
        self,
        model: str,
        data: LabelledSet,
        refs: Sequence[ClipRef],
        device: str,
        threshold: float | None,
        controls: bool,
        seed: int,
    ) -> None:
        if device == "cpu":
            torch.set_num_threads(1)  # sums are then taken in one order, on every machine
        candidate = bundle_candidate(load_bundle(resolve_model(model)), device, threshold)
        self._examiner = Examiner(candidate, data, refs, controls, seed)

    def __call__(self, row: Row) -> Row:
        """Add `result`, or the `fault` by class and message: Ray would lose the class of what is raised here."""
        try:
            return row | {"result": _RESULT.dump_json(self._examiner(row["place"])), "fault": "", "message": ""}
        except AvsError as fault:
            return row | {"result": b"", "fault": type(fault).__name__, "message": str(fault)}


def evaluate_model(model: str, data: LabelledSet, config: EvaluateConfig) -> Report:
    """Measure a bundle on a split. Raises what `evaluate_set` raises, BundleError, ConfigError without a GPU."""
    bundle = load_bundle(resolve_model(model)).config
    refs = chosen(data, config.split, config.limit)
    threshold = bundle.threshold if config.threshold is None else config.threshold
    arguments = {
        "model": model,
        "data": data,
        "refs": refs,
        "threshold": config.threshold,
        "controls": config.controls,
        "seed": config.seed,
    }
    made = _here if config.workers == 0 else _on_ray
    results = _told(made(len(refs), arguments, config), len(refs))
    return make_report(bundle.name, threshold, data, config.split, results, config.seed)


def _here(clips: int, arguments: dict[str, Any], config: EvaluateConfig) -> Iterator[Row]:
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    examine = ExamineClip(**arguments, device=device)
    for place in range(clips):
        yield examine({"place": place})


def _on_ray(clips: int, arguments: dict[str, Any], config: EvaluateConfig) -> Iterator[Row]:
    with connected(config.address):
        pool = size_pools(clips, PoolConfig(decoders=1, segmenters=config.workers), config.device).segment
        rows = chain(
            one_row_blocks([{"place": place} for place in range(clips)]),
            ExamineClip,
            {**arguments, "device": "cuda" if pool.gpus else "cpu"},
            ActorPoolStrategy(size=pool.workers),
            **pool.asks,
        )
        yield from outcomes(rows)


def _told(rows: Iterator[Row], total: int) -> Iterator[ClipResult]:
    """The results. A damaged clip stops the job: a figure must not leave out what it can't read."""
    for count, row in enumerate(rows, 1):
        if row["fault"]:
            raise getattr(errors, row["fault"])(row["message"])
        if count % _TOLD_EVERY == 0 or count == total:
            LOG.info("%d of %d clips", count, total)
        yield _RESULT.validate_json(row["result"])
