"""The data card: what is in a benchmark, what it is made of, and what it can't tell."""

from collections import Counter
from collections.abc import Iterable, Sequence

from avs_core.datasets.benchmark.manifest import ManifestRow
from avs_core.datasets.benchmark.plan import FPS, SIZE, Plan
from avs_core.datasets.sources import LICENCES, source_key

_SUBSETS = ("single", "multi", "silent-distractor", "same-class-pair", "off-screen", "silent")

_LIMITS = """\
- It measures *which object sounds*. All clips are combinations of the few sources counted above: a score here says
  nothing about real videos.
- Objects are cut-outs: they shift, turn and stretch, but don't move their limbs, and no lips follow speech.
- In a same-class pair nothing but the motion can tell which one sounds, and that only where it follows the sound
  (`moves_with_sound` in the instances).
- Silent objects are placed after the sources and stand a little farther from the middle. Size, order and the traces
  of compositing tell next to nothing (measured in the repository, docs/decisions/0007).
- "unseen" holds classes that are in no other split; they stand in the places of "test"."""


def data_card(rows: Sequence[ManifestRow], plan: Plan, version: str, makers: str) -> str:
    """Markdown. `makers` names the versions of what encoded the files."""
    splits: list[str] = list(dict.fromkeys(row.split for row in rows))
    return "\n".join(
        [
            f"# Composite benchmark, scale {plan.scale}",
            "",
            "Photographed things, cut out, on photographed places, with recordings of the same things. Layout of",
            f"AVSBench: S4 under `s4_data`, MS3 under `ms3_data`. Frames and masks {SIZE} × {SIZE}, taken from videos",
            f"of {FPS} frames a second (H.264 and AAC) at 0.9375 s of each second; sound 16 kHz from the same videos.",
            "",
            f"    avs benchmark build --out OUT --scale {plan.scale} --seed {plan.seed}",
            "",
            f"Version `{version}`. The same command gives the same bytes with {makers}.",
            "",
            "## Clips",
            "",
            *_table(["", *splits], _clips(rows, splits)),
            "",
            "Groups are measured on the finished clip. single, multi: objects in the picture that sound.",
            "silent-distractor: a silent object covers at least as much as the largest source, and its class sounds",
            "in another clip of the split. same-class-pair: one of two objects of a class sounds. off-screen:",
            "something sounds that is not in the picture, and has no mask. silent: nothing sounds.",
            "",
            "## Sources behind them",
            "",
            *_table(["different", *splits], _sources(rows, splits)),
            "",
            "No picture, recording, individual or place is in two of train, val and test; the manifest proves it.",
            "",
            "## Classes: clips in which it sounds / in which it is seen and silent",
            "",
            *_table(["class", *splits], _classes(rows, splits)),
            "",
            "## Limits",
            "",
            _LIMITS,
            "",
            "## Licences",
            "",
            "Pictures are cut out, scaled, moved and re-coloured; sounds repeated, levelled and mixed.",
            "`manifest.parquet` names the sources of each clip as PACKAGE:path.",
            "",
            *_table(["package", "sources used", "licence"], _licences(rows)),
            "",
        ]
    )


def _table(head: Sequence[str], body: Iterable[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def _clips(rows: Sequence[ManifestRow], splits: Sequence[str]) -> list[list[object]]:
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        counts.update((row.split, name) for name in ("all", row.setting, *row.subsets))
    names = ["all", "s4", "ms3", *_SUBSETS]
    return [[name, *(counts[split, name] for split in splits)] for name in names]


def _sources(rows: Sequence[ManifestRow], splits: Sequence[str]) -> list[list[object]]:
    def different(split: str, refs: Iterable[tuple[str, str]]) -> int:
        return len({ref for found, ref in refs if found == split})

    kinds = {
        "pictures": [(row.split, ref) for row in rows for ref in row.image_refs],
        "individuals (files without their running number)": [
            (row.split, source_key(ref)) for row in rows for ref in row.image_refs
        ],
        "recordings": [(row.split, ref) for row in rows for ref in row.sound_refs],
        "places": [(row.split, row.background_ref) for row in rows],
        "combinations of all three": [(row.split, row.source_id) for row in rows],
    }
    return [[name, *(different(split, refs) for split in splits)] for name, refs in kinds.items()]


def _classes(rows: Sequence[ManifestRow], splits: Sequence[str]) -> list[list[object]]:
    sounding: Counter[tuple[str, str]] = Counter((row.split, name) for row in rows for name in row.categories)
    silent: Counter[tuple[str, str]] = Counter((row.split, name) for row in rows for name in set(row.silent))
    names = sorted({name for _, name in (*sounding, *silent)})
    return [[name, *(f"{sounding[split, name]} / {silent[split, name]}" for split in splits)] for name in names]


def _licences(rows: Sequence[ManifestRow]) -> list[list[object]]:
    refs = {ref for row in rows for ref in (*row.image_refs, *row.sound_refs, row.background_ref)}
    used = Counter(ref.partition(":")[0] for ref in refs)
    return [[package, count, LICENCES.get(package, "not known")] for package, count in sorted(used.items())]
