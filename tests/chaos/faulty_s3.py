"""A front before the real S3 server that fails on purpose: it refuses, breaks off, is slow, or kills who asks.

Requests go through unchanged, signature and all. What happens to each is chosen by a `Choice`, one of those below
or a test's own.
"""

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.s3_server import S3Server

HOP = {"connection", "expect", "transfer-encoding", "keep-alive"}
"""Headers between two neighbours, not for whoever is behind."""
OWN = HOP | {"content-length", "date", "server"}


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: list[tuple[str, str]]
    content: bytes


class Exchange:
    """A request, and what can be done with it. `path` names bucket and key; `conditional`: only if absent."""

    def __init__(self, handler: BaseHTTPRequestHandler, endpoint: str) -> None:
        self._handler = handler
        self._host = endpoint.removeprefix("http://")
        self._body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.verb = handler.command
        self.path = handler.path.partition("?")[0]
        self.conditional = "If-None-Match" in handler.headers

    @property
    def writes(self) -> bool:
        """Whether the store changes by it."""
        return self.verb in ("PUT", "DELETE")

    def forward(self) -> Answer:
        """Let the server act."""
        headers = {name: value for name, value in self._handler.headers.items() if name.lower() not in HOP}
        with contextlib.closing(http.client.HTTPConnection(self._host, timeout=60)) as upstream:
            upstream.request(self.verb, self._handler.path, self._body, headers)
            got = upstream.getresponse()
            return Answer(got.status, got.getheaders(), got.read())

    def reply(self, answer: Answer, share: float = 1.0) -> None:
        """Tell the client, or only a share of the content."""
        self._handler.send_response(answer.status)
        for name, value in answer.headers:
            if name.lower() not in OWN or (self.verb == "HEAD" and name.lower() == "content-length"):
                self._handler.send_header(name, value)
        content = b"" if self.verb == "HEAD" else answer.content
        if self.verb != "HEAD":
            self._handler.send_header("Content-Length", str(len(content)))
        self._handler.end_headers()
        self._handler.wfile.write(content[: int(len(content) * share)])

    def refuse(self, status: int, code: str) -> None:
        """Answer in the server's place, as S3 words it."""
        content = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self.reply(Answer(status, [("Content-Type", "application/xml")], content))

    def reset(self) -> None:
        """Break the connection: the client sees a reset, not an end."""
        linger = struct.pack("ii", 1, 0)
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._handler.connection.close()
        self._handler.close_connection = True


Way = Callable[[Exchange], None]
"""What becomes of an exchange."""
Choice = Callable[[Exchange], Way | None]
"""The fault of an exchange, or None to let it through. Called by one thread at a time."""


def refused(status: int, code: str) -> Way:
    """Nothing happens, and the store says so."""
    return lambda exchange: exchange.refuse(status, code)


def lost(status: int, code: str) -> Way:
    """It happens, and the store says that it did not."""

    def act(exchange: Exchange) -> None:
        exchange.forward()
        exchange.refuse(status, code)

    return act


def reset_before(exchange: Exchange) -> None:
    """The connection breaks before anything happens."""
    exchange.reset()


def reset_after(exchange: Exchange) -> None:
    """It happens, and the connection breaks before anybody hears of it."""
    exchange.forward()
    exchange.reset()


def broken_off(exchange: Exchange) -> None:
    """The connection breaks in the middle of the answer."""
    exchange.reply(exchange.forward(), share=0.5)
    exchange.reset()


def delayed(seconds: float) -> Way:
    """It takes its time."""

    def act(exchange: Exchange) -> None:
        time.sleep(seconds)
        exchange.reply(exchange.forward())

    return act


@dataclass
class Drawn:
    """A share of all requests fail, each in one of the ways, by a seeded draw."""

    ways: tuple[Way, ...]
    share: float
    seed: int = 20260
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)

    def __call__(self, exchange: Exchange) -> Way | None:
        """By the next numbers of the draw."""
        return self.draw.choice(self.ways) if self.draw.random() < self.share else None


@dataclass
class Front:
    """The running front. `server` is what clients are given; `injected` counts the faults."""

    server: S3Server
    choice: Choice
    injected: int = 0
    seen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def way(self, exchange: Exchange) -> Way | None:
        """What shall become of it."""
        with self.lock:
            self.seen += 1
            chosen = self.choice(exchange)
            self.injected += chosen is not None
            return chosen


@contextlib.contextmanager
def in_front_of(server: S3Server, choice: Choice) -> Iterator[Front]:
    """The same bucket at another endpoint, where requests fail as the choice says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            exchange = Exchange(self, server.endpoint)
            way = front.way(exchange)
            try:
                if way is None:
                    exchange.reply(exchange.forward())
                else:
                    way(exchange)
            except OSError:  # who asked is gone, or the server behind is
                self.close_connection = True

        def log_message(self, *about: object) -> None:
            """Tests say what they need themselves."""

    for verb in ("GET", "PUT", "HEAD", "DELETE", "POST"):
        setattr(Handler, f"do_{verb}", Handler.serve)
    listening = _Listening(("127.0.0.1", 0), Handler)
    front = Front(replace(server, endpoint=f"http://127.0.0.1:{listening.server_port}"), choice)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield front
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed breaks its connection."""
