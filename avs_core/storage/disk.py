"""The local disk as a store: complete files only, published by a link or a rename, and synced.

A file is written without a name (`O_TMPFILE`) and linked to its name when it is complete, so a process killed at
any moment leaves nothing behind. Where the file system has no nameless files, a `.….partial` stands in for it,
which listings do not show.
"""

import errno
import io
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs

from avs_core.errors import AccessDenied, AlreadyExists, NotApplied, NotFound, OutcomeUnknown, StorageError
from avs_core.storage.store import ObjectInfo

PARTIAL = ".partial"

READS = ("read", "look at")
NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""A folder, a link to itself and a name that no file can have: there is nothing to read, today or tomorrow."""

NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""A file that has gone, a link that leads to nothing, to itself or to what no name can be: not there."""


BUFFER = 1 << 16
"""Bytes that are read ahead; larger reads go past it."""


class _File(io.FileIO):
    """A file whose reads fail as its opening does: a bad sector, or a share that is away, is the store's fault."""

    def readinto(self, buffer: Any, /) -> int | None:
        with _translated("read", str(self.name)):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with _translated("read", str(self.name)):
            return super().readall()


class Disk:
    """The local file system."""

    def open_read(self, path: str) -> io.BufferedReader:
        with _translated("read", path):
            return io.BufferedReader(_File(path), BUFFER)

    def read(self, path: str) -> bytes:
        with _translated("read", path):
            return Path(path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        with _translated("write", path), _draft(Path(path), data) as draft:
            try:
                draft.publish(Path(path).name)
            except FileExistsError:
                if Path(path).read_bytes() == data:
                    os.utime(path)  # as on S3, it was written now
                    return
                draft.publish(partial := _partial_name())
                os.replace(partial, Path(path).name, src_dir_fd=draft.folder, dst_dir_fd=draft.folder)
            draft.sync_folder()

    def put_if_absent(self, path: str, data: bytes) -> None:
        with _translated("write", path), _draft(Path(path), data) as draft:
            draft.publish(Path(path).name)
            draft.sync_folder()

    def delete(self, path: str) -> None:
        with _translated("delete", path):
            Path(path).unlink(missing_ok=True)

    def info(self, path: str) -> ObjectInfo:
        with _translated("look at", path):
            if not Path(path).is_file():
                raise FileNotFoundError
            return _info(path, Path(path).stat())

    def encrypted_by_key(self, path: str) -> bool:
        return False

    def is_directory(self, path: str) -> bool:
        with _translated("look at", path):
            try:
                return Path(path).is_dir()
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    return False
                raise

    def files(self, path: str, recursive: bool) -> Iterator[ObjectInfo]:
        """In the order of S3: by the bytes of the whole path. Links to folders are not followed.

        A folder of a million is held as names alone, a fifth of what its entries take.
        """
        with _translated("list", path):
            try:
                with os.scandir(path) as entries:
                    keys = sorted(map(_key, entries))
            except (FileNotFoundError, NotADirectoryError):
                return
        folder = path.rstrip("/")
        for key in keys:
            name = os.fsdecode(key)
            if name.endswith("/"):
                yield from self.files(f"{folder}/{name[:-1]}", recursive) if recursive else ()
            elif not (name.startswith(".") and name.endswith(PARTIAL)):
                yield from _listed(f"{folder}/{name}")

    def arrow(self) -> Any:
        return pyarrow.fs.LocalFileSystem()


class _Draft:
    """A complete file without a name in the folder that it will be published in."""

    def __init__(self, source: str, folder: int) -> None:
        self._source = source
        self.folder = folder

    def publish(self, name: str) -> None:
        """Give it a name, exclusively. Raises FileExistsError."""
        try:
            # With dst_dir_fd Python calls linkat, which alone follows /proc/self/fd to the nameless file.
            os.link(self._source, name, dst_dir_fd=self.folder, follow_symlinks=True)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise NotApplied(
                    f"a file system written to needs hard links (they publish a file exclusively); that of {name} "
                    f"has none: use another disk, or S3"
                ) from error
            raise

    def sync_folder(self) -> None:
        """Make the name itself durable."""
        try:
            os.fsync(self.folder)
        except OSError as error:
            raise OutcomeUnknown(f"a write must reach the disk; its folder could not be synced: {error}") from error


@contextmanager
def _draft(target: Path, data: bytes) -> Iterator[_Draft]:
    _make_folder(target.parent)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _nameless(target.parent) as (fd, source):
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(fd)
            yield _Draft(source, folder)
    finally:
        os.close(folder)


@contextmanager
def _nameless(folder: Path) -> Iterator[tuple[int, str]]:
    """An open file and a path that can be linked to a name; gone at the end unless it was."""
    partial = None
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except (AttributeError, OSError):  # not Linux, or not this file system; another fault shows again below
        partial = folder / _partial_name()
        fd = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        yield fd, str(partial or f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
        if partial:
            partial.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Create it and its parents, each durable before what lies in it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(above)
    finally:
        os.close(above)


def _partial_name() -> str:
    return f".{uuid.uuid4().hex}{PARTIAL}"


def _info(path: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        uri=path,
        size=status.st_size,
        fingerprint=f"{status.st_size}-{status.st_mtime_ns}",
        modified_us=status.st_mtime_ns // 1000,
    )


def _key(entry: os.DirEntry[str]) -> bytes:
    """What orders an entry of a folder; a folder's own name ends in a slash."""
    return os.fsencode(entry.name) + (b"/" if entry.is_dir(follow_symlinks=False) else b"")


def _listed(path: str) -> Iterator[ObjectInfo]:
    """The facts of a directory's entry, if it is a file and still there."""
    with _translated("look at", path):
        try:
            facts = Path(path).stat()
        except OSError as error:
            if error.errno in NOWHERE:
                return
            raise
    if stat.S_ISREG(facts.st_mode):
        yield _info(path, facts)


@contextmanager
def _translated(act: str, path: str) -> Iterator[None]:
    """Say an OSError as a StorageError."""
    try:
        yield
    except OSError as error:
        fault: type[StorageError] = NotApplied
        if isinstance(error, FileNotFoundError | NotADirectoryError) or (act in READS and error.errno in NO_FILE):
            fault = NotFound
        elif isinstance(error, FileExistsError):
            fault = AlreadyExists
        elif isinstance(error, PermissionError):
            fault = AccessDenied
        raise fault(f"could not {act} {path}: {error.strerror or 'there is no such file'}") from error
