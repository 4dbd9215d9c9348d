"""The figures of an evaluation, as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from avs_core.datasets.labelled import ClipRef, LabelledSet, heard_by
from avs_core.evaluation.attention import attention_figure
from avs_core.evaluation.clusters import Features, cluster_figure, features
from avs_core.evaluation.examine import Report, chosen
from avs_core.evaluation.grids import clip_grid, telling
from avs_core.evaluation.predict import bundle_candidate
from avs_core.evaluation.sounds import SoundBank
from avs_core.metrics import BETA2, THRESHOLDS
from avs_core.models.bundle import Bundle
from avs_core.models.tpavi import TPAVINet

GRIDS = 6
"""Clips that are shown frame by frame."""

CLUSTERED = 80
"""Clips whose seconds the t-SNE lays out."""


def draw(
    report: Report,
    bundle: Bundle,
    data: LabelledSet,
    out: Path,
    limit: int | None = None,
    seed: int = 0,
    without: Bundle | None = None,
) -> tuple[Path, ...]:
    """Draw what the report measured, from the same clips; returns the files. Attention and t-SNE are TPAVI's alone.

    without  a bundle trained without audio, for the t-SNE; by default it shows the same net before its sound comes in
    """
    refs = chosen(data, report.split, limit)
    candidate = bundle_candidate(bundle, threshold=report.threshold)
    data = heard_by(data, candidate.front_end)
    bank = SoundBank(data, refs, candidate.alignment, seed, candidate.front_end)
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def keep(name: str, figure: Figure | None) -> None:
        if figure is not None:
            figure.savefig(out / name, dpi=100)
            written.append(out / name)

    keep("precision_recall.png", precision_recall_figure(report))
    keep("reliability.png", reliability_figure(report))
    for number, place in enumerate(telling(refs, GRIDS), 1):
        clip = data.load(refs[place], candidate.size, candidate.alignment)
        keep(f"clip_{number}.png", clip_grid(place, clip, candidate, bank))
        keep(f"attention_{number}.png", attention_figure(bundle, clip))
    if not isinstance(bundle.net, TPAVINet):
        return tuple(written)
    few = refs[:: max(1, len(refs) // CLUSTERED)][:CLUSTERED]
    panels = [("with audio", _features(bundle, data, few))]
    if without is None:
        panels.append(("the same net, before the sound comes in", _features(bundle, data, few, deaf=True)))
    else:
        panels.append((f"trained without audio: {without.config.name}", _features(without, data, few)))
    keep("tsne.png", cluster_figure(panels, seed))
    return tuple(written)


def precision_recall_figure(report: Report) -> Figure | None:
    """All pixels of all frames, over 255 thresholds, with lines of equal F; None where nothing sounds."""
    if not report.curve:
        return None
    recall, precision = np.array(report.curve).T
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axis = figure.subplots()
    grid = np.linspace(0.01, 1, 200)
    shape = axis.contour(
        grid,
        grid,
        (1 + BETA2) * grid[:, None] * grid / (BETA2 * grid[:, None] + grid),
        levels=np.arange(0.2, 1, 0.2),
        colors="lightgrey",
        linewidths=0.8,
    )
    axis.clabel(shape, fmt="F %.1f", fontsize=7)
    axis.plot(recall, precision, color="tab:blue")
    for threshold, marker in {0.5: "o", report.threshold: "s"}.items():
        at = round(threshold * (THRESHOLDS - 1))
        axis.plot(recall[at], precision[at], marker, color="tab:orange", label=f"threshold {threshold:g}")
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(loc="lower left", fontsize=8)
    axis.set_title(f"{report.model} on {report.data} / {report.split}", fontsize=10)
    return figure


def reliability_figure(report: Report) -> Figure | None:
    """How often objects sound against how surely they were said to; None where no object is covered.

    DeGroot and Fienberg, The Statistician 1983. The area of a point is the number of objects.
    """
    found = report.instances
    if found is None or not found.reliability:
        return None
    said, happened, count = np.array(found.reliability).T
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="lightgrey", linewidth=0.8)
    axis.plot(said, happened, color="tab:blue", linewidth=0.8)
    axis.scatter(said, happened, 20 + 380 * count / count.max(), color="tab:blue", alpha=0.6)
    for x, y, n in found.reliability:
        axis.annotate(str(n), (x, y), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=7)
    axis.set(xlabel="said: how surely it sounds", ylabel="share that sounds", xlim=(0, 1), ylim=(0, 1.02))
    axis.set_title(f"{report.model} on {report.data} / {report.split}: ECE {found.ece:.3f}", fontsize=10)
    return figure


def _features(bundle: Bundle, data: LabelledSet, refs: Sequence[ClipRef], deaf: bool = False) -> Features:
    config = bundle.config
    return features(bundle, (data.load(ref, config.size, config.alignment) for ref in refs), deaf)
