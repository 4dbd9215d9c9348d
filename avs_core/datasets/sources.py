"""Real pictures and sounds out of distribution packages, joined by a hand-checked catalogue.

`catalogue.json` names, for each class, its cut-out pictures and its recorded sounds, and a list of
photographs of places. A reference is `PACKAGE:/path inside the package`,
`gcompris-qt-data:NAME.rcc:/path inside the Qt resource file`, `openttd-opensfx:NN_name.wav` or
`cutouts:NAME.webp` (shipped beside this module). Splits are by source: no picture, recording, individual
or place is in two of them.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import av
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from avs_core.clip import AUDIO_RATE
from avs_core.datasets.containers import read_qt_resources, read_sound_catalogue
from avs_core.errors import ConfigError, InputError, UnreadableMedia

Split = Literal["train", "val", "test", "unseen"]
Place = Literal["ground", "air", "water", "border"]
Setting = Literal["land", "street", "indoor", "water"]

_HERE = Path(__file__).parent
_RCC_FOLDER = "usr/share/gcompris-qt/rcc"
_OPENSFX = "usr/share/games/openttd/baseset/opensfx/opensfx.cat"
MAX_PIXELS = 8192 * 4320
"""Of a picture; the largest of the packages has fewer."""

_HELD_OUT_SHARE = 1 / 7

LICENCES: Mapping[str, str] = {
    "tuxpaint-stamps-default": "GPL-2+",
    "gcompris-qt-data": "GPL-3+; photographs PD, CC0, CC-BY or CC-BY-SA (README of each .rcc)",
    "scratch": "CC-BY-SA-3.0",
    "openttd-opensfx": "CC-BY-SA-3.0 as a whole; each sound CC0 or CC-BY-3.0",
    "sonic-pi-samples": "CC0-1.0",
    "lmms-common": "GPL-2+",
    "sound-icons": "GPL-2+",
    "plasma-workspace-wallpapers": "GPL-2+",
    "mate-backgrounds": "GPL-2+",
    "lomiri-wallpapers-16.04": "CC-BY-4.0 or CC-BY-SA-4.0 (copyright file of the package)",
    "cutouts": "PD, CC0, CC-BY or CC-BY-SA (cutouts/SOURCES.md)",
}
"""Licence of everything that a reference may start with; the keys are the packages that `fetch_packages` gets."""


class ClassEntry(BaseModel):
    """One class: where it may stand, how tall it looks (share of the frame's height), its pictures and sounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    settings: tuple[Setting, ...] = Field(min_length=1)
    height: tuple[float, float]
    images: tuple[str, ...]
    sounds: tuple[str, ...]


class Background(BaseModel):
    """A photograph of a place. Things stand between `ground` (share of the height, from above) and its lower edge."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ref: str
    setting: Setting
    ground: float = Field(gt=0, lt=1)


class Catalogue(BaseModel):
    """All classes and backgrounds; `places` names the pictures that fly, swim or are cut off at the frame's edge.

    `unseen` classes are in no other split: they are the "potential sounding objects" nobody trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: dict[str, ClassEntry]
    places: dict[str, Place] = {}
    backgrounds: tuple[Background, ...]
    unseen: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path = _HERE / "catalogue.json") -> "Catalogue":
        """Read and check a catalogue; raises ConfigError naming the field at fault."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ConfigError(f"{path} is no catalogue: {error}") from error


def default_cache() -> Path:
    """Where packages are unpacked: `AVS_SOURCES`, or `~/.cache/avs/sources`."""
    return Path(os.environ.get("AVS_SOURCES") or Path.home() / ".cache" / "avs" / "sources")


def fetch_packages(cache_dir: Path | None = None) -> Path:
    """Download and unpack (without root) what is not yet in `cache_dir`; about 410 MB the first time.

    Raises InputError if `apt-get` or `dpkg` is missing or fails.
    """
    root = cache_dir or default_cache()
    root.mkdir(parents=True, exist_ok=True)
    for package in LICENCES:
        if package != "cutouts" and not (root / package).is_dir():
            _fetch_package(package, root / package)
    return root


def fetch_wheel(requirement: str, cache_dir: Path | None = None) -> Path:
    """Unpack the wheel of `NAME==VERSION` without what it requires, if that is not done yet; returns its folder.

    For files that a package carries: nothing of it is imported. Raises InputError if pip is missing or fails.
    """
    root = cache_dir or default_cache()
    folder = root / requirement.replace("==", "-")
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        with _staged(folder) as staging:
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", requirement]
            _run(pip, cwd=staging, remedy="check that pip is installed and reaches a package index")
            (archive,) = staging.glob("*.whl")
            shutil.unpack_archive(archive, staging / "files", "zip")
    return folder


def fetch_package(requirement: str, sha256: str, cache_dir: Path | None = None) -> Path:
    """Unpack the distribution package `NAME=VERSION` if that is not done yet; returns its folder.

    For files that it carries: nothing is installed. Raises InputError if `apt-get` or `dpkg` is missing or fails, or
    if the package is another one than `sha256` says.
    """
    root = cache_dir or default_cache()
    folder = root / requirement.replace("=", "-")
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        _fetch_package(requirement, folder, sha256)
    return folder


def _fetch_package(requirement: str, folder: Path, sha256: str | None = None) -> None:
    with _staged(folder) as staging:
        _run(["apt-get", "download", requirement], cwd=staging, remedy="try `apt-get update` first")
        (archive,) = staging.glob("*.deb")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if sha256 not in (None, found):
            raise InputError(f"{requirement} must have the SHA-256 {sha256}, got {found}: it is another package")
        _run(["dpkg", "-x", str(archive), str(staging / "files")], cwd=staging, remedy="try it again")


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder to fill `files` in, which becomes `folder` in the end: what has the name is complete.

    Of several who fill one at the same time the first names it, and the others take that.
    """
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield staging
        try:
            (staging / "files").rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(staging)


def _run(command: Sequence[str], cwd: Path, remedy: str) -> None:
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InputError(
            f"the source packages need `{command[0]}` (Debian or Ubuntu); unpack them elsewhere and set AVS_SOURCES"
        ) from error
    except subprocess.CalledProcessError as error:
        raise InputError(f"`{' '.join(command)}` failed ({error.stderr.strip()}); {remedy}") from error


class Sources:
    """Pictures, sounds and places of a catalogue, by split.

    `root` holds one folder a package (see `fetch_packages`); nothing is read before it is asked for.
    """

    def __init__(self, catalogue: Catalogue | None = None, root: Path | None = None) -> None:
        self.catalogue = catalogue or Catalogue.load()
        self.root = root or default_cache()
        self._containers: dict[str, dict[str, bytes]] = {}

    @property
    def categories(self) -> tuple[str, ...]:
        """All classes, the unseen ones too, in the catalogue's order."""
        return tuple(self.catalogue.classes)

    def soundable(self, split: Split) -> tuple[str, ...]:
        """Classes with a picture and a sound in this split."""
        return tuple(name for name in self.categories if self.images(split, name) and self.sounds(split, name))

    def images(self, split: Split, category: str) -> tuple[str, ...]:
        """References of the pictures of a class in a split, maybe none."""
        return self._splits[0].get((split, category), ())

    def sounds(self, split: Split, category: str) -> tuple[str, ...]:
        """References of the sounds of a class in a split, maybe none."""
        return self._splits[1].get((split, category), ())

    def backgrounds(self, split: Split) -> tuple[Background, ...]:
        """Places of a split; "unseen" shares those of "test"."""
        return self._places.get("test" if split == "unseen" else split, ())

    @cached_property
    def _splits(self) -> tuple[dict[tuple[str, str], tuple[str, ...]], dict[tuple[str, str], tuple[str, ...]]]:
        images: dict[tuple[str, str], tuple[str, ...]] = {}
        sounds: dict[tuple[str, str], tuple[str, ...]] = {}
        for name, entry in self.catalogue.classes.items():
            for table, refs in ((images, entry.images), (sounds, entry.sounds)):
                parts = {"unseen": refs} if name in self.catalogue.unseen else split_by_source(name, refs)
                table.update({(split, name): part for split, part in parts.items()})
        return images, sounds

    @cached_property
    def _places(self) -> dict[str, tuple[Background, ...]]:
        """Split within each setting, so that every split has water and rooms."""
        by_ref = {place.ref: place for place in self.catalogue.backgrounds}
        parts: dict[str, tuple[Background, ...]] = {}
        for setting in sorted({place.setting for place in by_ref.values()}):
            refs = tuple(ref for ref, place in by_ref.items() if place.setting == setting)
            for split, chosen in split_by_source(setting, refs).items():
                parts[split] = parts.get(split, ()) + tuple(by_ref[ref] for ref in chosen)
        return parts

    def load_image(self, ref: str) -> UInt8[np.ndarray, "H W 4"]:
        """A picture with alpha. Raises InputError for an unknown reference, UnreadableMedia for a damaged file."""
        try:
            with _opened(self.read(ref), ref) as image:
                return np.array(image.convert("RGBA"))
        except UnidentifiedImageError as error:
            raise UnreadableMedia(f"{ref} is not a picture: {error}") from error

    def load_background(self, ref: str, longest: int = 960) -> UInt8[np.ndarray, "H W 3"]:
        """A photograph, reduced until its longer side has at most `longest` pixels."""
        with _opened(self.read(ref), ref) as image:
            image.draft("RGB", (longest, longest))
            picture = image.convert("RGB")
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        return np.array(picture)

    def load_sound(self, ref: str) -> Float32[np.ndarray, " n"]:
        """A sound, mono at 16 kHz. Raises InputError for an unknown reference, UnreadableMedia for a damaged file."""
        return decode_sound(self.read(ref), ref)

    def read(self, ref: str) -> bytes:
        """The file that a reference names. Raises InputError if there is none."""
        package, _, path = ref.partition(":")
        if package == "cutouts":
            return self._file(_HERE / "cutouts" / path, ref)
        if package == "openttd-opensfx" and not path.startswith("/"):
            return self._entry(self.root / package / _OPENSFX, path, ref)
        if ".rcc:" in path:
            container, _, inner = path.partition(":")
            return self._entry(self.root / package / _RCC_FOLDER / container, inner, ref)
        return self._file(self.root / package / path.lstrip("/"), ref)

    def _file(self, path: Path, ref: str) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise InputError(f"{ref} names no file under {self.root}; call fetch_packages() first") from error

    def _entry(self, container: Path, name: str, ref: str) -> bytes:
        key = str(container)
        if key not in self._containers:
            data = self._file(container, ref)
            self._containers[key] = read_qt_resources(data) if container.suffix == ".rcc" else _opensfx_files(data)
        if name not in self._containers[key]:
            raise InputError(f"{ref}: {container.name} has no entry {name!r}")
        return self._containers[key][name]


def _opened(data: bytes, ref: str) -> Image.Image:
    """A picture that is not decoded yet. Raises UnreadableMedia for one of more than `MAX_PIXELS`."""
    image = Image.open(io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableMedia(f"a picture may have at most {MAX_PIXELS} pixels; {ref} has {image.width}×{image.height}")
    return image


def _opensfx_files(data: bytes) -> dict[str, bytes]:
    """Sounds under `NN_name.wav`: position in the archive, and its quoted title with other signs as `_`."""
    files = {}
    for index, (description, riff) in enumerate(read_sound_catalogue(data)):
        title = re.sub(r"[^A-Za-z0-9]+", "_", description.split('"')[1] if '"' in description else description)
        files[f"{index:02d}_{title}.wav"] = riff
    return files


def decode_sound(data: bytes, name: str) -> Float32[np.ndarray, " n"]:
    """Decode any audio file to float32 at 16 kHz, the mean of its channels. Raises UnreadableMedia naming `name`."""
    resampler = av.AudioResampler(format="fltp", rate=AUDIO_RATE)
    try:
        with av.open(io.BytesIO(data), mode="r") as container:
            frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    except (av.FFmpegError, IndexError) as error:
        raise UnreadableMedia(f"{name} is not a sound: {error}") from error
    return np.concatenate([frame.to_ndarray().mean(0) for frame in frames]).astype(np.float32)


def split_by_source(salt: str, refs: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Divide references into train, val and test so that references of one source stay together.

    A single source goes to train; of two or three, one goes to val or test as the salt's hash says;
    from four on, a seventh of them (at least one) each to val and test. Depends on nothing but the strings.
    """
    groups: dict[str, list[str]] = {}
    for ref in refs:
        groups.setdefault(source_key(ref), []).append(ref)
    order = sorted(groups, key=lambda key: _hash(f"{salt}/{key}"))
    if len(order) == 1:
        names = ["train"]
    elif len(order) <= 3:
        names = [("val", "test")[_hash(salt) % 2]] + ["train"] * (len(order) - 1)
    else:
        held = max(1, round(_HELD_OUT_SHARE * len(order)))
        names = ["test"] * held + ["val"] * held + ["train"] * (len(order) - 2 * held)
    parts: dict[str, tuple[str, ...]] = {}
    for split, key in zip(names, order, strict=True):
        parts[split] = parts.get(split, ()) + tuple(groups[key])
    return parts


@lru_cache(maxsize=4096)
def source_key(ref: str) -> str:
    """What several references of one source share: the person, or the file name without its running number."""
    package, _, path = ref.partition(":")
    stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    if "/Costumes/People/" in path or "/fireman" in path:
        named = re.match(r"[a-z]+", stem)  # amon1, cassy-dancing-2, fireman200b: the name is the individual
        return f"{package}:{named.group() if named else stem}"
    folder = path.rsplit("/", 1)[0] if "/" in path else ""
    numbered = re.sub(r"^\d+_|[-_]?\d+_?[a-z]?(?=$|[-_])|-[a-z]$", "", re.sub(r"-[a-z]$", "", stem))
    return f"{package}:{folder}/{numbered or stem}"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
