"""From what the user typed to a list of videos: files, directories, globs, manifests and inventories, on disk or S3."""

import logging
from collections.abc import Iterable, Iterator

from avs_core import storage
from avs_core.clip import MISSING_FINGERPRINT, VideoRef
from avs_core.errors import AccessDenied, InputError, NotFound
from avs_core.pipelines import inventory
from avs_core.pipelines.manifest import MANIFEST_SUFFIXES, manifest_entries

LOG = logging.getLogger(__name__)

_SUFFIXES = ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv"
VIDEO_SUFFIXES = frozenset(_SUFFIXES.split())
"""What a directory listing takes for a video; a file named by itself, a glob or a manifest may have any name."""

LOOKS_AT_ONCE = 32
"""Entries of a manifest are looked up so many at a time: the store's latency is all they cost."""


def find_videos(inputs: Iterable[str]) -> list[VideoRef]:
    """Every video the inputs name, each once, sorted by URI.

    An input is a file, a directory (searched to the bottom for `VIDEO_SUFFIXES`), a glob (`*`, `?`, `[…]`), an S3
    Inventory (its `manifest.json`) or a manifest (`.txt` one URI a line, `.csv` or `.parquet` with a column uri,
    video_uri, path or video; relative entries start at the manifest's folder). A manifest's entry that is not there is
    kept, so that it ends as a dead letter; an input that names nothing is an `InputError`. What a listing shows under
    a name that an archive can't repeat is left out, with a warning.
    """
    found: dict[str, VideoRef] = {}
    for text in inputs:
        before = len(found)
        found.update((video.uri, video) for video in _expand(text))
        if len(found) == before and not any(True for _ in _expand(text)):
            raise InputError(
                f"an input must name at least one video; {storage.redacted(text)} names none. Directories are "
                f"searched for {', '.join(sorted(VIDEO_SUFFIXES))}; other names need a glob or a manifest."
            )
    if not found:
        raise InputError("no input was given: name a file, a directory, a glob or a manifest of videos")
    return [found[uri] for uri in sorted(found)]


def _expand(text: str) -> Iterable[VideoRef]:
    """The videos of one input.

    A role may be granted what lies below a prefix and not the prefix's own name: S3 then answers 403 to the look
    whether there is a file of that name, and only the listing tells that it is a directory.
    """
    uri = storage.normalise(text)
    if uri.endswith(f"/{inventory.NAME}"):
        return _nameable(inventory.inventory_videos(uri, _is_video), uri)
    try:
        found = storage.info(uri)
    except (NotFound, AccessDenied) as fault:
        listed = _listed(text, uri)
        if listed is not None:
            return listed
        if isinstance(fault, AccessDenied):
            raise
        raise InputError(f"an input must exist; there is no file or directory {uri}") from None
    return _manifest(uri) if uri.lower().endswith(MANIFEST_SUFFIXES) else [_named(found)]


def _listed(text: str, uri: str) -> Iterator[VideoRef] | None:
    """The videos of a directory or a glob; None where it is neither."""
    if storage.is_directory(uri):
        return _nameable((_ref(found) for found in storage.list_files(uri) if _is_video(found.uri)), uri)
    return _nameable(map(_ref, storage.glob(uri)), uri) if any(mark in text for mark in "*?[") else None


def _nameable(listed: Iterable[VideoRef], uri: str) -> Iterator[VideoRef]:
    """What an archive can name of a listing: not what is no text, and no signature, which nothing may repeat."""
    kept = skipped = 0
    first = ""
    for video in listed:
        if _is_text(video.uri) and storage.redacted(video.uri) == video.uri:
            kept += 1
            yield video
        else:
            first = first if skipped else storage.redacted(video.uri)
            skipped += 1
    if skipped:
        LOG.warning(
            "a video's name must be valid UTF-8 and hold no signature; %d of %d in %s are left out, the first is %r: "
            "rename them",
            *(skipped, kept + skipped, uri, first),
        )


def _manifest(uri: str) -> Iterator[VideoRef]:
    folder = uri.rsplit("/", 1)[0]
    entries = (entry if _is_absolute(entry) else f"{folder}/{entry}" for entry in manifest_entries(uri))

    def look(entry: str) -> VideoRef:
        try:
            return listed_video(entry)
        except InputError as error:
            raise InputError(f"an entry of {uri} can't be: {error}") from error

    return storage.in_threads(look, entries, LOOKS_AT_ONCE)


def listed_video(uri: str) -> VideoRef:
    """The video that an entry of a list names; one that can't be found is kept, so that its decoder says so."""
    uri = storage.normalise(uri)
    try:
        return _named(storage.info(uri))
    except (NotFound, AccessDenied):
        return VideoRef(uri=uri, size=0, fingerprint=MISSING_FINGERPRINT)


def _is_absolute(entry: str) -> bool:
    return "://" in entry or entry.startswith("/")


def _is_video(uri: str) -> bool:
    name = uri.rsplit("/", 1)[-1]
    return "." in name and f".{name.rsplit('.', 1)[-1].lower()}" in VIDEO_SUFFIXES


def _is_text(uri: str) -> bool:
    return uri.encode("utf-8", "ignore").decode() == uri


def _named(found: storage.ObjectInfo) -> VideoRef:
    """A video that somebody named by itself."""
    if not _is_text(found.uri):
        raise InputError(f"a file name must be valid UTF-8, {found.uri!r} is not: rename the file")
    return _ref(found)


def _ref(found: storage.ObjectInfo) -> VideoRef:
    return VideoRef(uri=found.uri, size=found.size, fingerprint=found.fingerprint, modified_us=found.modified_us)
