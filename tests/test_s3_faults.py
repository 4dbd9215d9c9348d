"""What a server of S3, or the way to it, does wrong: refusals, broken connections, silence, missing credentials."""

import json
import multiprocessing
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from avs_core import storage
from avs_core.errors import (
    AccessDenied,
    AlreadyExists,
    NotApplied,
    NotFound,
    OutcomeUnknown,
    StorageError,
)
from avs_core.storage import s3 as s3_store
from tests.s3_server import KEY, SECRET, S3Server
from tests.silent_s3 import SilentStore, silent_store

RESET = -1


class Scripted(ThreadingHTTPServer):
    """Answers each request with the next status of its script, after a pause.

    0 breaks the connection, RESET does so without a farewell, 206 in the middle of the content.
    """

    def __init__(self, script: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.script = script
        self.requests: list[str] = []
        self.headers: dict[str, str] = {}
        self.pause_s = 0.0


class _Answer(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(f"{self.command} {self.headers.get('If-None-Match', '')}".strip())
        time.sleep(self.server.pause_s)
        status = self.server.script.pop(0)
        if status == RESET:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if status in (0, RESET):
            self.close_connection = True
            return
        body = b"<Error><Code>Whatever</Code><Message>secret</Message></Error>"
        if status in (200, 206):
            body = b"" if self.command == "PUT" else b"content"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:1] if status == 206 else body)
            self.close_connection = status == 206

    do_GET = do_HEAD = do_PUT = _answer  # noqa: N815  # the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[int]], Scripted]]:
    """Start a server with a script, and point S3 at it."""
    servers: list[Scripted] = []

    def start(script: list[int]) -> Scripted:
        server = Scripted(script)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (403, AccessDenied),
        (404, NotFound),
        (412, AlreadyExists),
        (409, NotApplied),
        (400, NotApplied),
        (500, OutcomeUnknown),
        (503, OutcomeUnknown),
    ],
)
def test_a_conditional_write_is_sent_once(
    scripted: Callable[[list[int]], Scripted], status: int, fault: type[StorageError]
) -> None:
    server = scripted([status, 200, 200, 200])
    with pytest.raises(fault) as raised:
        storage.put_if_absent("s3://bucket/key", b"x")
    assert type(raised.value) is fault
    assert server.requests == ["PUT *"]
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("broken", [0, RESET])
def test_a_conditional_write_over_a_broken_connection_may_have_happened(
    broken: int, scripted: Callable[[list[int]], Scripted]
) -> None:
    server = scripted([broken] * 10)
    with pytest.raises(OutcomeUnknown):
        storage.put_if_absent("s3://bucket/key", b"x")
    assert len(server.requests) <= 2  # aiohttp sends a PUT again by itself, once


@pytest.mark.parametrize(
    ("name", "value", "encrypted"),
    [
        ("x-amz-server-side-encryption", "aws:kms", True),
        ("x-amz-server-side-encryption", "aws:kms:dsse", True),
        ("x-amz-server-side-encryption", "AES256", False),  # keys of S3 itself: the etag stays an MD5
        ("x-amz-server-side-encryption-customer-algorithm", "AES256", True),
        ("x-other", "aws:kms", False),
    ],
)
def test_encryption_that_spoils_an_etag_is_told_by_one_look(
    scripted: Callable[[list[int]], Scripted], name: str, value: str, encrypted: bool
) -> None:
    server = scripted([200])
    server.headers = {name: value}
    assert storage.encrypted_by_key("s3://bucket/key") == encrypted
    assert server.requests == ["HEAD"]


@pytest.mark.parametrize("fault", [500, 503, 0])
def test_a_read_is_repeated(scripted: Callable[[list[int]], Scripted], fault: int) -> None:
    server = scripted([fault, fault, 200])
    assert storage.read_bytes("s3://bucket/key") == b"content"
    assert server.requests == ["GET"] * 3


def test_a_read_is_not_repeated_for_ever(scripted: Callable[[list[int]], Scripted]) -> None:
    server = scripted([500] * 100)
    with pytest.raises(OutcomeUnknown):
        storage.read_bytes("s3://bucket/key")
    assert len(server.requests) <= 9


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SilentStore]]:
    """Start a store that falls silent, and point S3 at it."""
    with ExitStack() as running:

        def start(*what: Any) -> SilentStore:
            server = running.enter_context(silent_store(*what))
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            return server

        yield start


@pytest.mark.timeout(60)
@pytest.mark.parametrize("write", [storage.put_if_absent, storage.write_bytes])
def test_a_write_to_a_store_that_stays_silent_ends(
    silent: Callable[..., SilentStore], write: Callable[[str, bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = silent()
    monkeypatch.setattr(s3_store, "WRITE_TIMEOUT_S", 5.0)
    with pytest.raises(OutcomeUnknown, match=r"could not write s3://bucket/key: the store took too long"):
        write("s3://bucket/key", b"x")
    assert server.hung_up.wait(10)  # nothing goes on writing in the background


@pytest.mark.timeout(60)
def test_what_arrow_writes_to_a_silent_store_ends_too(
    silent: Callable[..., SilentStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are checkpoints written."""
    silent()
    monkeypatch.setattr(s3_store, "WRITE_TIMEOUT_S", 5.0)
    filesystem, path = storage.arrow_filesystem("s3://bucket/key")
    stream = filesystem.open_output_stream(path)
    stream.write(b"x")
    with pytest.raises(OSError):  # noqa: PT011  # that of fsspec says nothing
        stream.close()


def test_a_large_write_is_given_longer(
    scripted: Callable[[list[int]], Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "WRITE_TIMEOUT_S", 0.5)
    server = scripted([200] * 9)
    server.pause_s = 2.0
    storage.write_bytes("s3://bucket/key", bytes(30 * s3_store.WRITE_RATE))
    with pytest.raises(OutcomeUnknown):
        storage.write_bytes("s3://bucket/key", b"x")


@pytest.mark.parametrize("halves", [1, 9])
def test_an_answer_that_stops_in_the_middle_is_a_fault_of_the_store(
    silent: Callable[..., SilentStore], halves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = silent(b"x" * 1000, 1, halves)
    monkeypatch.setattr(s3_store, "READ_TIMEOUT_S", 0.2)
    with storage.open_read("s3://bucket/key") as file:
        with pytest.raises(OutcomeUnknown):
            file.read()
        asked = len(server.requests)
        with pytest.raises(OutcomeUnknown):
            file.read()
    assert len(server.requests) == asked  # who goes on reading gets the same answer at once


def test_an_answer_that_broke_off_is_asked_for_again(scripted: Callable[[list[int]], Scripted]) -> None:
    """Also the answer, not only the question."""
    server = scripted([200, 206, 200])
    with storage.open_read("s3://bucket/key") as file:
        assert file.read() == b"content"
    assert server.requests == ["HEAD", "GET", "GET"]


@pytest.mark.parametrize("answers", [(0, 0), (1, 0), (1, 1)])
def test_who_is_in_a_hurry_waits_no_longer_than_he_said(
    silent: Callable[..., SilentStore], answers: tuple[int, int]
) -> None:
    silent(b"x" * 1000, *answers)
    store = s3_store.S3()
    store.hurry(2.0)
    started = time.monotonic()
    with pytest.raises(OutcomeUnknown, match="took too long"), store.open_read("bucket/key") as file:
        file.read()
    assert time.monotonic() - started < s3_store.READ_TIMEOUT_S


def test_an_endpoint_that_is_not_there_got_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(NotApplied, match="AWS_ENDPOINT_URL"):
        storage.put_if_absent("s3://bucket/key", b"x")


def test_without_credentials_access_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(AccessDenied, match="AWS_ACCESS_KEY_ID"):
        storage.read_bytes("s3://bucket/key")


@pytest.mark.integration
def test_a_wrong_secret_is_denied_and_not_repeated(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(storage.join(s3_bucket, "key"), b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with pytest.raises(AccessDenied) as denied:
        storage.read_bytes(storage.join(s3_bucket, "key"))
    assert "hunter2" not in str(denied.value)


def _child(uri: str) -> None:
    storage.write_bytes(f"{uri}-child", storage.read_bytes(uri))


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # that is what is tested
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_has_its_own_connection(s3_bucket: str, method: str) -> None:
    uri = storage.join(s3_bucket, "key")
    storage.write_bytes(uri, b"x")
    child = multiprocessing.get_context(method).Process(target=_child, args=(uri,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert storage.read_bytes(f"{uri}-child") == b"x"


@pytest.mark.integration
def test_fsspecs_own_configuration_serves_too(s3: S3Server) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    options = {"endpoint_url": s3.endpoint, "key": KEY, "secret": SECRET}
    look = f"from avs_core import storage as s; s.put_if_absent('{s3.uri}/k', b'1'); print(s.read_bytes('{s3.uri}/k'))"
    done = subprocess.run(
        [sys.executable, "-c", look],
        env=environment | {"FSSPEC_S3": json.dumps(options)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "b'1'\n"
