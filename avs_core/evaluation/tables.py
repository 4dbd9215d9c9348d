"""A report as tables for a terminal."""

from collections.abc import Iterator

from rich import box
from rich.table import Table

from avs_core.evaluation.examine import Report
from avs_core.evaluation.figures import Figures
from avs_core.evaluation.instances import InstanceFigures
from avs_core.evaluation.listening import Listening

_COLUMNS = {
    "miou": "M_J",
    "miou_sounding": "M_J s",
    "fscore": "M_F",
    "miou_at": "M_J t",
    "miou_sounding_at": "M_J st",
    "f_at": "M_F t",
    "empty_false_area": "false",
    "empty_dark": "dark",
}

_LEGEND = """s: frames in which something seen sounds; t: at threshold {:g}, else 0.5
false, dark: of frames without truth, area lit and frames at most 1 % lit
low, high: 95 % by bootstrap over videos"""


def tables(report: Report) -> Iterator[Table]:
    """The figures by group, then whether the model listens."""
    yield _groups(report)
    if report.listening is not None:
        yield _listening(report.listening)
    if report.instances is not None:
        yield _instances(report.instances)


def _groups(report: Report) -> Table:
    official = f"official M_J {report.official.miou:.4f}, M_F {report.official.fscore:.4f}"
    table = Table(
        title=f"{report.model} on {report.data} / {report.split}: {report.clips} clips\n{official}",
        caption=_LEGEND.format(report.threshold),
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("", no_wrap=True)
    for name in ("frames", *_COLUMNS.values()):
        table.add_column(name, justify="right")
    table.add_row("all", str(report.overall.frames), *_cells(report.overall), style="bold")
    for end, name in enumerate(("low", "high")):
        bounds = (report.intervals.get(column) for column in _COLUMNS)
        table.add_row(name, "", *(_number(b and b[end]) for b in bounds), style="dim", end_section=name == "high")
    named = {
        "": report.settings if len(report.settings) > 1 else {},
        "sources ": report.sources,
        "subset ": report.subsets,
        "class ": report.categories,
    }
    for prefix, groups in named.items():
        for name, figures in groups.items():
            table.add_row(
                f"{prefix}{name}", str(figures.frames), *_cells(figures), end_section=name == list(groups)[-1]
            )
    return table


def _cells(figures: Figures) -> list[str]:
    return [_number(getattr(figures, name)) for name in _COLUMNS]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _instances(found: InstanceFigures) -> Table:
    table = Table("objects", "figures", title="Which objects does it find?", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_row(
        f"seen: {found.objects}",
        f"AP {found.ap:.3f}, at IoU .5 {found.ap50:.3f}, whatever they are called {found.ap_any:.3f}; covered "
        f"{found.recalled:.1%}, and of these rightly named {found.named:.1%}",
    )
    table.add_row(
        f"heard: {found.sounding}",
        f"AP at IoU .5 {found.heard_ap50:.3f}, whatever they are called; ECE {found.ece:.3f}",
    )
    return table


def _listening(found: Listening) -> Table:
    table = Table("test", "frames", "figures", title="Does it listen?", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    pair, swap = found.pair_switch, found.swap
    if pair is not None:
        table.add_row(
            "pair switch",
            str(pair.frames),
            f"passed {pair.passed:.1%}, worst IoU {pair.worst_iou:.3f}, leak {pair.leak:.3f}, both sounds "
            f"{pair.both_iou:.3f}, lit in silence {pair.quiet_area:.3f}",
        )
    if swap is not None:
        for name, delta, bounds in (
            ("another clip's sound", swap.delta_foreign, swap.delta_foreign_interval),
            ("no sound", swap.delta_silence, swap.delta_silence_interval),
        ):
            text = f"true sound {swap.miou:.3f}, loses {delta:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})"
            table.add_row(f"swap: {name}", str(swap.frames), text)
    for kind, one in found.negatives.items():
        table.add_row(
            f"negative: {kind}",
            str(one.frames),
            f"lit {one.area:.3f}, frames lit {one.loud:.1%}, empty {one.empty:.1%} ({one.missed:.1%} under its own), "
            f"AUROC {one.auroc:.3f}, mIoU {one.miou:.3f}, G-mIoU {one.g_miou:.3f}",
        )
    for name, reason in found.unavailable.items():
        table.add_row(name.replace("_", " "), "0", f"not available: {reason}")
    return table
