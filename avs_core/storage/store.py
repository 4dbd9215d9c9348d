"""What disk and S3 have in common: the facts of an object, and the calls that the door forwards."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class ObjectInfo:
    """One file or object as a listing shows it.

    `fingerprint` names the content without reading it: etag and size on S3 (the version id is left out, since
    a listing does not show it and the same object must have one fingerprint however it was found), size and
    modification time in ns on disk. `modified_us` is µs since 1970.
    """

    uri: str
    size: int
    fingerprint: str
    modified_us: int


@runtime_checkable
class Store(Protocol):
    """The calls behind the door; a `path` is what follows the scheme, without a slash at its end."""

    def open_read(self, path: str) -> io.BufferedReader: ...

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, data: bytes) -> None: ...

    def put_if_absent(self, path: str, data: bytes) -> None: ...

    def delete(self, path: str) -> None: ...

    def info(self, path: str) -> ObjectInfo: ...

    def encrypted_by_key(self, path: str) -> bool: ...

    def is_directory(self, path: str) -> bool: ...

    def files(self, path: str, recursive: bool) -> Iterator[ObjectInfo]: ...

    def arrow(self) -> Any: ...
