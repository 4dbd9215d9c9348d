"""A store that accepts every connection and falls silent, or is slow: what a server looks like whose disks hang."""

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.s3_server import S3Server


class SilentStore(ThreadingHTTPServer):
    """Answers so many questions about an object wholly, so many by half, and then none: it takes them, and is silent.

    It thinks for `slow_s` before each answer. `hung_up` is set once a client has given up waiting.
    """

    def __init__(self, content: bytes, whole: int, halves: int, slow_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content = content
        self.whole = whole
        self.halves = halves
        self.slow_s = slow_s
        self.requests: list[str] = []
        self.hung_up = threading.Event()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return S3Server(f"http://127.0.0.1:{self.server_port}").environment


class _Answer(BaseHTTPRequestHandler):
    server: SilentStore
    protocol_version = "HTTP/1.1"

    def handle_expect_100(self) -> bool:
        """No `100 Continue` either."""
        return True

    def _answer(self) -> None:
        self.server.requests.append(self.command)
        time.sleep(self.server.slow_s)
        if self.server.whole:
            self.server.whole -= 1
            self._show(*self._range(), part=1)
            return
        if self.server.halves:
            self.server.halves -= 1
            self._show(*self._range(), part=2)
        self._wait_for_the_end()

    def _range(self) -> tuple[int, int]:
        asked = re.findall(r"\d+", self.headers.get("Range", ""))
        return (int(asked[0]), int(asked[1]) + 1) if asked else (0, len(self.server.content))

    def _show(self, start: int, stop: int, part: int) -> None:
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.server.content[start : start + (stop - start) // part])

    def _wait_for_the_end(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self.rfile.read(1):
                pass
        self.server.hung_up.set()
        self.close_connection = True

    do_GET = do_HEAD = do_PUT = _answer  # noqa: N815  # the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextlib.contextmanager
def silent_store(content: bytes = b"", whole: int = 0, halves: int = 0, slow_s: float = 0.0) -> Iterator[SilentStore]:
    """One that runs while the block lasts."""
    server = SilentStore(content, whole, halves, slow_s)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
