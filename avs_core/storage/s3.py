"""S3 as a store, through s3fs. The one place where HTTP statuses become errors of ours."""

import hashlib
import io
import os
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
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from avs_core.errors import AccessDenied, AlreadyExists, NotApplied, NotFound, OutcomeUnknown, StorageError
from avs_core.storage.store import ObjectInfo

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_ATTEMPTS = 3
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 15
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

_NEVER_SENT = (EndpointConnectionError, ConnectTimeoutError, ParamValidationError)
_FAULTS = (OSError, BotoCoreError, ClientError, aiohttp.ClientError)


class S3:
    """Object stores that speak S3."""

    def open_read(self, path: str) -> io.BufferedReader:
        with _translated("read", path):
            file = _filesystem().open(path, "rb", block_size=READ_AHEAD, cache_type="readahead")
        return io.BufferedReader(_Reader(file, path), buffer_size=2**16)

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

    def _head(self, path: str) -> dict[str, Any]:
        bucket, _, key = path.partition("/")
        if not key:
            raise NotFound(f"could not look at s3://{path}: a bucket is not an object")
        filesystem = _filesystem()
        with _translated("look at", path):
            return dict(filesystem.call_s3("head_object", Bucket=bucket, Key=key, **filesystem.req_kw))

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
    """A seekable read-only file whose faults are ours."""

    def __init__(self, file: Any, path: str) -> None:
        super().__init__()
        self._file = file
        self._path = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        with _translated("read", self._path):
            data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


_FILESYSTEMS: dict[tuple[int, bool, str], Any] = {}


def _filesystem(repeat: bool = True) -> Any:
    """The s3fs of this process and these settings; without `repeat`, one that sends each request once.

    Kept by process, because an event loop does not survive a fork, and by settings, because a test or a
    notebook may change them. No listing is cached: another process may write at any time.
    """
    key = (os.getpid(), repeat, _settings())
    if key not in _FILESYSTEMS:
        attempts = READ_ATTEMPTS if repeat else 1
        filesystem = s3fs.S3FileSystem(
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
    if isinstance(error, _NEVER_SENT):
        return NotApplied, f"the endpoint can't be reached ({type(error).__name__}): check AWS_ENDPOINT_URL"
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
