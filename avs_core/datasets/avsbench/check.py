"""A whole copy against its metadata: what is there, what is missing or broken, and counts per split."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from PIL import Image

from avs_core import storage
from avs_core.clip import AUDIO_RATE
from avs_core.datasets.avsbench import pictures
from avs_core.datasets.avsbench.clips import AvsBench, Entry
from avs_core.datasets.avsbench.findings import Finding, Kind
from avs_core.datasets.avsbench.layout import data_folders
from avs_core.datasets.avsbench.sound import read_sound
from avs_core.datasets.avsbench.truth import INSTANCES, read_instances
from avs_core.datasets.opening import Kind as OpenKind
from avs_core.datasets.opening import open_dataset
from avs_core.errors import ConfigError, DataError, NotFound

FIRST = 3
"""Findings that an error or a summary repeats."""

_THREADS = 8
"""Clips that a deep check reads at once: it waits for the store as long as it decodes."""

_LEAST_SOUND = 0.96
"""Share of a clip's seconds below which its sound counts as short: the published windows end there."""


@dataclass(frozen=True)
class SplitCount:
    """What a split has. `complete` clips lack no file; `log_mels` of them have a log-mel instead of a wav."""

    split: str
    clips: int
    complete: int
    seconds: int
    labelled: int
    log_mels: int


@dataclass(frozen=True)
class Report:
    """What was found. `deep`: every file was decoded, not only listed."""

    uri: str
    name: str
    version: str
    deep: bool
    splits: tuple[SplitCount, ...]
    findings: tuple[Finding, ...]

    @property
    def damage(self) -> tuple[Finding, ...]:
        """The findings that make a copy unfit: all but dirt, which is handled."""
        return tuple(finding for finding in self.findings if finding.kind != "dirt")

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged, as far as this check looked."""
        return not self.damage


def check_dataset(data: AvsBench | str, split: str = "all", deep: bool = False) -> Report:
    """Compare a copy, or one split of it, with its metadata.

    One listing per folder tells what is missing or empty; a deep check reads and decodes every file as well.
    Raises ConfigError for an unknown split, and what `open_dataset` raises for a path.
    """
    if isinstance(data, str):
        data = open_dataset(data)
    entries = _entries(data, split)
    there = _listing(data)
    findings = [*data.findings, *_strays(data, there)]
    if not data.entries:
        findings.append(Finding("contradicting", data.uri, "the metadata lists no clips"))
    lacking = {entry.listed.ref.clip_id: list(_lacking(entry, there)) for entry in entries}
    findings += [finding for found in lacking.values() for finding in found]
    if deep:
        with ThreadPoolExecutor(_THREADS) as threads:
            for found in threads.map(partial(_deep_findings, there=there), entries):
                findings += found
    complete = [entry for entry in entries if not lacking[entry.listed.ref.clip_id]]
    splits = data.splits() if split == "all" else (split,)
    counts = tuple(_count(data, one, complete, there) for one in splits)
    return Report(data.uri, data.name, data.version, deep, counts, tuple(findings))


def require_sound(report: Report) -> None:
    """Raises DataError for a damaged copy, with the first of its findings."""
    if report.sound:
        return
    kinds = Counter(finding.kind for finding in report.damage)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    first = "; ".join(f"{finding.path}: {finding.message}" for finding in report.damage[:FIRST])
    raise DataError(
        f"a data set must be whole; {storage.redacted(report.uri)} has findings ({counted}): {first}. "
        f"`avs data check {storage.redacted(report.uri)}` lists them all"
    )


def open_whole(uri: str, kind: OpenKind = "auto") -> AvsBench:
    """`open_dataset` for training: raises DataError for a copy that lacks files, or whose tables contradict.

    Files are listed, not decoded: `load` raises for what is broken inside.
    """
    data = open_dataset(uri, kind)
    require_sound(check_dataset(data))
    return data


def _entries(data: AvsBench, split: str) -> list[Entry]:
    if split == "all":
        return list(data.entries)
    if split not in data.splits():
        raise ConfigError(f"a split of {data.name} is one of all, {', '.join(data.splits())}, got {split!r}")
    return [data.entry(ref) for ref in data.clips(split)]


def _listing(data: AvsBench) -> dict[str, int]:
    """Size of each file in the folders of the data, by its full URI."""
    folders = {
        storage.join(entry.root, folder): None for entry in data.entries for folder in data_folders(entry.listed.ref)
    }
    folders |= {storage.join(entry.root, INSTANCES): None for entry in data.entries if entry.instances}
    return {found.uri: found.size for folder in folders for found in storage.list_files(folder)}


def _paths(entry: Entry) -> tuple[str, ...]:
    """What a clip needs whatever happens: all but its sound."""
    files = entry.files
    return (*files.frames, *files.masks, *([entry.instances] if entry.instances else []))


def _sound_path(entry: Entry, there: dict[str, int]) -> str | None:
    """The sound that will be read, None if there is none."""
    choices = (entry.files.wav, entry.files.log_mel)
    return next((path for path in choices if path and storage.join(entry.root, path) in there), None)


def _lacking(entry: Entry, there: dict[str, int]) -> Iterator[Finding]:
    """Files that are missing or empty."""
    sound = _sound_path(entry, there)
    if sound is None:
        instead = "" if entry.files.log_mel is None else f", nor {entry.files.log_mel}"
        yield Finding("missing", entry.files.wav, f"the sound of {entry.listed.name} is not there{instead}")
    for path in (*_paths(entry), *([sound] if sound else [])):
        size = there.get(storage.join(entry.root, path))
        if size is None:
            yield Finding("missing", path, f"a file of {entry.listed.name} is not there")
        elif not size:
            yield Finding("broken", path, "the file is empty")


def _strays(data: AvsBench, there: dict[str, int]) -> Iterator[Finding]:
    """Files that no clip needs, counted by folder."""
    needed: set[str] = set()
    for entry in data.entries:
        files = (*_paths(entry), entry.files.wav, *([entry.files.log_mel] if entry.files.log_mel else []))
        needed.update(storage.join(entry.root, path) for path in files)
    roots = sorted({entry.root for entry in data.entries}, key=len, reverse=True)
    strays: dict[str, list[str]] = {}
    for uri in sorted(there.keys() - needed):
        root = next(root for root in roots if uri.startswith(root + "/"))
        path = storage.relative(uri, root)
        strays.setdefault("/".join(path.split("/")[:2]), []).append(path)
    for folder, paths in strays.items():
        message = f"files that no clip needs, not read: {len(paths)}, such as {', '.join(paths[:FIRST])}"
        yield Finding("dirt", folder, message)


def _count(data: AvsBench, split: str, complete: Sequence[Entry], there: dict[str, int]) -> SplitCount:
    refs = data.clips(split)
    wanted = {ref.clip_id for ref in refs}
    done = [entry for entry in complete if entry.listed.ref.clip_id in wanted]
    return SplitCount(
        split=split,
        clips=len(refs),
        complete=len(done),
        seconds=sum(ref.seconds for ref in refs),
        labelled=sum(len(ref.labelled) for ref in refs),
        log_mels=sum(_sound_path(entry, there) == entry.files.log_mel for entry in done),
    )


def _deep_findings(entry: Entry, there: dict[str, int]) -> list[Finding]:
    """What is wrong inside the files of a clip that are there."""
    findings: list[Finding] = []
    shown = [_decoded(entry, path, there, findings) for path in entry.files.frames]
    for second, path in zip(entry.listed.ref.labelled, entry.files.masks, strict=True):
        mask = _decoded(entry, path, there, findings)
        if mask is not None:
            findings += _contradictions(entry, path, mask, shown[second])
    findings += _sound_findings(entry, there)
    if entry.instances and storage.join(entry.root, entry.instances) in there and shown[0] is not None:
        size = (shown[0].height, shown[0].width)
        try:
            data = storage.read_bytes(storage.join(entry.root, entry.instances))
            read_instances(data, entry.instances, entry.listed.ref.seconds, size, max(size))
        except (DataError, NotFound) as error:
            findings.append(Finding("broken", entry.instances, str(error)))
    return findings


def _decoded(entry: Entry, path: str, there: dict[str, int], findings: list[Finding]) -> Image.Image | None:
    """A picture; None for one that the listing found missing or empty, and for a broken one, which is a finding."""
    uri = storage.join(entry.root, path)
    if not there.get(uri):
        return None
    try:
        return pictures.decode(storage.read_bytes(uri), path)
    except DataError as error:
        findings.append(Finding("broken", path, str(error)))
    except NotFound as error:
        findings.append(Finding("missing", path, f"it vanished after it was listed: {error}"))
    return None


def _contradictions(entry: Entry, path: str, mask: Image.Image, shown: Image.Image | None) -> Iterator[Finding]:
    kind: Kind = "contradicting"
    try:
        if shown is not None:
            pictures.check_size(mask, shown, path)
        read = pictures.class_map if entry.listed.ref.setting == "avss" else pictures.binary_mask
        read(mask, path)
    except DataError as error:
        yield Finding(kind, path, str(error))


def _sound_findings(entry: Entry, there: dict[str, int]) -> Iterator[Finding]:
    path, seconds = _sound_path(entry, there), entry.listed.ref.seconds
    if path is None or not there[storage.join(entry.root, path)]:
        return
    try:
        _, waveform = read_sound(entry.root, entry.files, seconds, "official")
    except DataError as error:
        yield Finding("broken", path, str(error))
        return
    if waveform is not None and len(waveform) < _LEAST_SOUND * seconds * AUDIO_RATE:
        heard = len(waveform) / AUDIO_RATE
        yield Finding("dirt", path, f"lasts {heard:.2f} of {seconds} s; its last window is repeated, as published")
