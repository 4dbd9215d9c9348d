"""The only door to disk and S3: read, list, write, and put-if-absent on URIs.

A URI is a local path, `file://…` or `s3://bucket/key`; the canonical form of a local one is its absolute path.
Endpoint and credentials come from where every AWS tool takes them (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, profiles,
roles) and from fsspec's own configuration (FSSPEC_S3); never from a URI, and no message repeats them.

A write is there whole or not at all. The kind of `StorageError` tells what may be assumed: `NotApplied`,
`AlreadyExists`, `AccessDenied` and `NotFound` that nothing was written, `OutcomeUnknown` that the connection broke
after the request may have been sent. Reads are repeated a few times before they fail.
"""

import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from avs_core.errors import InputError, NotFound
from avs_core.storage.disk import Disk
from avs_core.storage.store import ObjectInfo, Store
from avs_core.storage.threads import in_threads

if TYPE_CHECKING:
    from avs_core.storage.s3 import S3

__all__ = [
    "ObjectInfo",
    "arrow_filesystem",
    "delete",
    "encrypted_by_key",
    "exists",
    "glob",
    "hurry",
    "in_threads",
    "info",
    "is_directory",
    "is_file",
    "join",
    "list_files",
    "normalise",
    "open_read",
    "put_if_absent",
    "read_bytes",
    "redacted",
    "relative",
    "write_bytes",
]

_MAGIC = re.compile(r"[*?\[]")
_SIGNED = re.compile(r"[?&](X-Amz-|AWSAccessKeyId=|Signature=)", re.IGNORECASE)


def normalise(uri: str) -> str:
    """The canonical form: an absolute path, or `s3://bucket/key` without a slash at its end.

    Raises `InputError` for other schemes, for `..` in a key and for credentials in the URI.
    """
    scheme, mark, rest = uri.partition("://")
    if not uri or "\0" in uri:
        raise InputError("a path or URI must not be empty or hold a null byte")
    if not mark:
        uri = re.sub("^/+", "/", uri)  # pathlib keeps two, and one file would have two names
        return str(Path(uri).absolute()) if ".." not in Path(uri).parts else str(Path(uri).resolve())
    if scheme == "file":
        return _local(unquote(rest), uri)
    if scheme != "s3":
        raise InputError(
            f"a URI must be a local path, file://… or s3://…; got {redacted(uri)}: copy it to one of them, or mount it"
        )
    return _s3(rest.rstrip("/"), uri)


def _local(path: str, uri: str) -> str:
    path = path.removeprefix("localhost")
    if not path.startswith("/"):
        raise InputError(f"a file:// URI must name an absolute path on this machine (file:///…), got {uri}")
    return normalise(path)


def _s3(path: str, uri: str) -> str:
    bucket, _, key = path.partition("/")
    if "@" in bucket or ":" in bucket or _SIGNED.search(path):
        raise InputError(
            f"a URI must not carry credentials; {redacted(uri)} does: "
            f"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
        )
    if not bucket or {".", ".."} & set(key.split("/")):
        raise InputError(f"an S3 URI must be s3://bucket/key without . or .. in the key, got {uri}")
    return f"s3://{path}"


def redacted(uri: str) -> str:
    """The text without what may be secret in it: user, password and query. For messages only."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    host, slash, path = rest.partition("/")
    hidden = "…@" if "@" in host else ""
    path = _SIGNED.split(path)[0] if scheme == "s3" else re.split("[?#]", path)[0]
    return f"{scheme}://{hidden}{host.rpartition('@')[2]}{slash}{path}"


def join(uri: str, *names: str) -> str:
    """`uri` followed by relative names. Raises `InputError` for one that is empty, absolute or leads upwards."""
    for name in names:
        if {"", ".", ".."} & set(name.split("/")) or "\0" in name:
            raise InputError(f"a name below {redacted(uri)} must be relative and without . or .., got {name!r}")
    return "/".join([uri.rstrip("/"), *names])


def relative(uri: str, folder: str) -> str:
    """What `join` would add to the folder to give `uri`; both in canonical form."""
    start = folder.rstrip("/") + "/"
    if not uri.startswith(start):
        raise InputError(f"{uri} does not lie in {folder}")
    return uri.removeprefix(start)


def open_read(uri: str) -> io.BufferedReader:
    """A seekable binary file, with read-ahead on S3. Raises `NotFound`, `AccessDenied`."""
    store, path = _store(uri)
    return store.open_read(path)


def hurry(uri: str, within_s: float) -> None:
    """From now on `open_read` in the store of that URI, and each read of what it opens, fails within that time.

    For who is watched: a store that stands still is at fault before he is. A disk can't be hurried.
    """
    if normalise(uri).startswith("s3://"):
        _s3_store().hurry(within_s)


def read_bytes(uri: str) -> bytes:
    """The whole content. Raises `NotFound`, `AccessDenied`."""
    store, path = _store(uri)
    return store.read(path)


def write_bytes(uri: str, data: bytes) -> None:
    """Write or replace: readers see the old content or the new, never a part. One PUT on S3."""
    store, path = _store(uri)
    store.write(path, data)


def put_if_absent(uri: str, data: bytes) -> None:
    """Write a key that must not exist yet; of several writers at once, one succeeds.

    Raises `AlreadyExists` when the key was taken (after a broken connection perhaps by this very request, which the
    HTTP client repeats: compare the content), `OutcomeUnknown` when only a look can tell. An S3 server that ignores
    `If-None-Match` overwrites instead: such a store must not have two writers.
    """
    store, path = _store(uri)
    store.put_if_absent(path, data)


def delete(uri: str) -> None:
    """Remove a file or object; one that is not there is no error."""
    store, path = _store(uri)
    store.delete(path)


def info(uri: str) -> ObjectInfo:
    """Size, fingerprint and modification time. Raises `NotFound` also for a folder."""
    store, path = _store(uri)
    return store.info(path)


def encrypted_by_key(uri: str) -> bool:
    """Whether the store encrypts it with a key of KMS or of the client: its etag looks like an MD5 then, and is none.

    One request on S3. Raises as `info`.
    """
    store, path = _store(uri)
    return store.encrypted_by_key(path)


def is_file(uri: str) -> bool:
    """Whether there is a file or object of that name."""
    try:
        info(uri)
    except NotFound:
        return False
    return True


def is_directory(uri: str) -> bool:
    """Whether there is a folder of that name; on S3, whether any key lies below it."""
    store, path = _store(uri)
    return store.is_directory(path)


def exists(uri: str) -> bool:
    """Whether there is a file or a folder of that name."""
    return is_file(uri) or is_directory(uri)


def list_files(uri: str, recursive: bool = True) -> Iterator[ObjectInfo]:
    """The files of a folder as a stream; none if there is no such folder.

    Sorted by the bytes of their paths on disk and on AWS; S3 servers that keep folders go through them in turn.
    """
    store, path = _store(uri)
    return store.files(path, recursive)


def glob(pattern: str) -> Iterator[ObjectInfo]:
    """The files that match: `*` and `?` stay within a folder, `**` crosses folders, `[…]` is a set.

    In the order of `list_files`. A pattern without any of these gives the one file, if it is there.
    """
    pattern = normalise(pattern)
    magic = _MAGIC.search(pattern)
    if magic is None:
        yield from [info(pattern)] if is_file(pattern) else []
        return
    folder = pattern[: magic.start()].rpartition("/")[0]
    if folder == "s3:/":
        raise InputError(f"a glob must name its bucket, got {pattern}")
    rest = pattern[len(folder) + 1 :]
    try:
        matches = re.compile(_expression(rest), re.DOTALL).fullmatch
    except re.error as error:
        raise InputError(
            f"[…] in a name that is no file's is a set of characters, such as [a-z]; {pattern} has none that can be: "
            f"{error}; is the file there? * and ? may stand for the brackets"
        ) from None
    for found in list_files(folder or "/", recursive="/" in rest or "**" in rest):
        if matches(found.uri[len(folder) + 1 :]):
            yield found


def _expression(pattern: str) -> str:
    """A glob as a regular expression."""
    tokens = re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(token) or _set_or_text(token) for token in tokens)


def _set_or_text(token: str) -> str:
    inner = token[1:-1]
    if not (token.startswith("[") and token.endswith("]") and inner not in ("", "!")):
        return re.escape(token)
    chosen = re.sub(r"([\\\]\[^&~|])", r"\\\1", inner.removeprefix("!"))
    chosen = re.sub("^-", r"\\-", chosen)
    return f"(?!/)[^{chosen}]" if inner.startswith("!") else f"[{chosen}]"


def arrow_filesystem(uri: str) -> tuple[Any, str]:
    """What pyarrow needs to read there: a `pyarrow.fs.FileSystem` and the path on it."""
    store, path = _store(uri)
    return store.arrow(), path


def _store(uri: str) -> tuple[Store, str]:
    uri = normalise(uri)
    if uri.startswith("s3://"):
        return _s3_store(), uri.removeprefix("s3://")
    return Disk(), uri


@cache
def _s3_store() -> "S3":
    from avs_core.storage.s3 import S3  # here, because importing s3fs takes longer than most local commands

    return S3()
