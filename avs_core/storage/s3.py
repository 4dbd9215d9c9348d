"""S3 as a store, through s3fs. The one place where HTTP statuses become errors of ours."""

import asyncio
import hashlib
import io
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import fsspec
import pyarrow.fs
import s3fs
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from fsspec.asyn import sync, sync_wrapper
from fsspec.caching import ReadAheadCache

from avs_core.errors import AccessDenied, AlreadyExists, NotApplied, NotFound, OutcomeUnknown, StorageError
from avs_core.storage.store import ObjectInfo

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_ATTEMPTS = 3
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 15
WRITE_TIMEOUT_S = 30
"""Seconds that the smallest write may take, with all its repeats: a connection and an answer fit in (25 s), and the
holder of a lease whose heartbeat was stuck that long writes another one before it is taken for dead."""

WRITE_RATE = 2**16
"""Bytes a second, half a megabit, that a write makes at least: what it may take grows with its size. A limit on a link
that is slow, and shared, would be one that no repeat keeps; half a gigabyte may take two hours."""

ONE_PUT = 2**31
"""s3fs sends up to twice this in one request: a commit must not be a multipart upload."""
READ_AHEAD = 4 * 2**20
KMS = "aws:kms"
"""How the kinds of encryption with keys of KMS begin."""

_BY_STATUS: dict[int, type[StorageError]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    412: AlreadyExists,
}
_BY_CODE: dict[str, type[StorageError]] = {
    # Credentials that ran out say nothing about the object: it may be read again tomorrow.
    "ExpiredToken": NotApplied,
    "InvalidToken": NotApplied,
    "NoSuchBucket": NotFound,
}
"""Codes that share a status with something else."""

_NEVER_SENT = (aiohttp.ClientConnectorError, socket.gaierror, ConnectTimeoutError, ParamValidationError)
_BROKEN_OFF = (HTTPClientError, IncompleteReadError, aiohttp.ClientPayloadError)
"""What stops an answer in the middle."""

_FAULTS = (OSError, BotoCoreError, ClientError, aiohttp.ClientError)


class S3:
    """Object stores that speak S3."""

    def __init__(self) -> None:
        self._within_s: float | None = None

    def hurry(self, within_s: float) -> None:
        """Let `open_read`, and each read of what it opens from now on, fail after that many seconds at the latest."""
        self._within_s = within_s

    def open_read(self, path: str) -> io.BufferedReader:
        head = self._head(path, self._within_s)
        return io.BufferedReader(_Reader(path, head, self._within_s), buffer_size=2**16)

    def read(self, path: str) -> bytes:
        with _translated("read", path):
            return bytes(_filesystem().cat_file(path, max_concurrency=1))  # one GET, no HEAD before it

    def write(self, path: str, data: bytes) -> None:
        with _translated("write", path):
            _filesystem().pipe_file(path, data, chunksize=ONE_PUT)

    def put_if_absent(self, path: str, data: bytes) -> None:
        """Sent once by s3fs; its HTTP client may still repeat it when a connection breaks under it."""
        with _translated("write", path):
            _filesystem(repeat=False).pipe_file(path, data, chunksize=ONE_PUT, mode="create")

    def delete(self, path: str) -> None:
        bucket, _, key = path.partition("/")
        with _translated("delete", path):
            _filesystem().call_s3("delete_object", Bucket=bucket, Key=key)

    def info(self, path: str) -> ObjectInfo:
        bucket, _, key = path.partition("/")
        head = self._head(path)
        return _info(bucket, {**head, "Key": key, "Size": head["ContentLength"]})

    def encrypted_by_key(self, path: str) -> bool:
        head = self._head(path)
        return head.get("ServerSideEncryption", "").startswith(KMS) or "SSECustomerAlgorithm" in head

    def is_directory(self, path: str) -> bool:
        return any(True for _ in self._pages(path, MaxKeys=1))

    def files(self, path: str, recursive: bool) -> Iterator[ObjectInfo]:
        """Page by page, so that a listing of millions needs the memory of a thousand."""
        bucket = path.partition("/")[0]
        for page in self._pages(path, **({} if recursive else {"Delimiter": "/"})):
            yield from (_info(bucket, entry) for entry in page if not entry["Key"].endswith("/"))

    def arrow(self) -> Any:
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(_filesystem()))

    def _head(self, path: str, within_s: float | None = None) -> dict[str, Any]:
        bucket, _, key = path.partition("/")
        if not key:
            raise NotFound(f"could not look at s3://{path}: a bucket is not an object")
        filesystem = _filesystem()
        question = {"Bucket": bucket, "Key": key, **filesystem.req_kw}
        with _translated("look at", path):
            return dict(sync(filesystem.loop, filesystem._call_s3, "head_object", **question, timeout=within_s))

    def _pages(self, path: str, **options: Any) -> Iterator[list[dict[str, Any]]]:
        """The pages of a folder that hold anything."""
        bucket, _, key = path.partition("/")
        filesystem = _filesystem()
        options |= {"Bucket": bucket, "Prefix": f"{key}/" if key else "", **filesystem.req_kw}
        while True:
            with _translated("list", path):
                page = filesystem.call_s3("list_objects_v2", **options)
            if page.get("Contents"):
                yield page["Contents"]
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]


class _Reader(io.RawIOBase):
    """A seekable read-only object, fetched in blocks; its faults are ours, and after the first one nothing is asked.

    The file of s3fs has no limit of time, and takes an answer that stops in the middle for an IndexError.
    """

    def __init__(self, path: str, head: dict[str, Any], within_s: float | None) -> None:
        super().__init__()
        bucket, _, key = path.partition("/")
        self._path = path
        self._filesystem = _filesystem()
        self._object = {"Bucket": bucket, "Key": key}
        if not getattr(self._filesystem, "local_expiry_check", False):  # set for servers that know no If-Match
            self._object["IfMatch"] = head["ETag"]  # blocks of two objects make no third one
        self._size = int(head["ContentLength"])
        self._blocks = ReadAheadCache(READ_AHEAD, self._fetch, self._size)
        self._within_s = within_s
        self._at = 0
        self._fault: StorageError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError(f"a position must not lie before the start of the object, got {at}")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(self._at, self._at + len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read(self, start: int, stop: int) -> bytes:
        if self._fault:
            raise self._fault
        try:
            with _translated("read", self._path):
                return bytes(self._blocks._fetch(start, stop))
        except StorageError as fault:
            self._fault = fault
            raise

    def _fetch(self, start: int, stop: int) -> bytes:
        return bytes(sync(self._filesystem.loop, self._get, start, stop, timeout=self._within_s))

    async def _get(self, start: int, stop: int, attempts: int = READ_ATTEMPTS) -> bytes:
        """Bytes [start, stop); s3fs repeats the question, this the answer."""
        answer = await self._filesystem._call_s3("get_object", Range=f"bytes={start}-{stop - 1}", **self._object)
        try:
            return bytes(await answer["Body"].read())
        except _BROKEN_OFF:
            if attempts == 1:
                raise
        finally:
            answer["Body"].close()
        return await self._get(start, stop, attempts - 1)


class _FileSystem(s3fs.S3FileSystem):  # type: ignore[misc]  # it has no types
    """s3fs that lets no write wait for ever.

    botocore asks before it sends a body (`Expect: 100-continue`), and its HTTP client counts READ_TIMEOUT_S only once
    the body is on its way: a server that accepts a connection and stays silent would hold a write as long as it likes.
    """

    async def _call_s3(self, method: str, *options: Any, **arguments: Any) -> Any:
        """Raises `TimeoutError` where the limit of a write passed, and cancels it."""
        call = super()._call_s3(method, *options, **arguments)
        if method not in ("put_object", "upload_part"):
            return await call
        return await asyncio.wait_for(call, WRITE_TIMEOUT_S + len(arguments.get("Body") or b"") / WRITE_RATE)

    call_s3 = sync_wrapper(_call_s3)


_FILESYSTEMS: dict[tuple[int, bool, str], Any] = {}


def _filesystem(repeat: bool = True) -> Any:
    """The s3fs of this process and these settings; without `repeat`, one that sends each request once.

    Kept by process, because an event loop does not survive a fork, and by settings, because a test or a
    notebook may change them. No listing is cached: another process may write at any time.
    """
    key = (os.getpid(), repeat, _settings())
    if key not in _FILESYSTEMS:
        attempts = READ_ATTEMPTS if repeat else 1
        filesystem = _FileSystem(
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                **fsspec.config.conf.get("s3", {}).get("config_kwargs", {}),
                "retries": {"total_max_attempts": attempts, "mode": "standard"},
            },
        )
        filesystem.retries = attempts
        _FILESYSTEMS[key] = filesystem
    return _FILESYSTEMS[key]


def _settings() -> str:
    """A hash of what decides endpoint and credentials; hashed because secrets are among it."""
    chosen = sorted((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "FSSPEC_")))
    return hashlib.sha256(repr((chosen, fsspec.config.conf.get("s3"))).encode()).hexdigest()


def _info(bucket: str, entry: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        uri=f"s3://{bucket}/{entry['Key']}",
        size=entry["Size"],
        fingerprint=f"{entry['ETag'].strip(chr(34))}-{entry['Size']}",
        modified_us=round(entry["LastModified"].timestamp() * 1_000_000),
    )


@contextmanager
def _translated(act: str, path: str) -> Iterator[None]:
    """Say a fault of the transport or an HTTP status as a StorageError, without repeating what the server said."""
    try:
        yield
    except _FAULTS as error:
        fault, reason = _fault(error)
        raise fault(f"could not {act} s3://{path}: {reason}") from error


def _fault(error: BaseException) -> tuple[type[StorageError], str]:
    answer = _answer(error)
    if answer is not None:
        return _refusal(answer)
    if isinstance(error, FileNotFoundError):
        return NotFound, "there is no such object"
    if isinstance(error, PermissionError | NoCredentialsError | PartialCredentialsError):
        return AccessDenied, (
            "credentials are missing or refused: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
        )
    # botocore has one name for a connection that never came about and for one that broke under a request
    inner = error.kwargs["error"] if isinstance(error, EndpointConnectionError) else error
    if isinstance(inner, _NEVER_SENT):
        return NotApplied, f"the endpoint can't be reached ({type(error).__name__}): check AWS_ENDPOINT_URL"
    if isinstance(error, TimeoutError):
        return OutcomeUnknown, "the store took too long: see whether it stands still, or the link is too slow"
    return OutcomeUnknown, f"the connection broke ({type(error).__name__})"


def _refusal(answer: ClientError) -> tuple[type[StorageError], str]:
    status = answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = answer.response.get("Error", {}).get("Code", "")
    otherwise = NotApplied if 300 <= status < 500 else OutcomeUnknown
    return _BY_CODE.get(code, _BY_STATUS.get(status, otherwise)), f"the store answered {status} {code}"


def _answer(error: BaseException | None) -> ClientError | None:
    """The server's own answer, which s3fs hides behind an OSError."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__
    return error
