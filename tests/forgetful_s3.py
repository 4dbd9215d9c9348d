"""A store that ignores `If-None-Match`: the real S3 server behind a front that drops the header, as some servers do."""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.s3_server import KEY, SECRET, S3Server

DROPPED = {"if-none-match", "authorization", "host", "connection", "content-length", "transfer-encoding"}


@contextlib.contextmanager
def in_front_of(server: S3Server) -> Iterator[S3Server]:
    """The same buckets at another endpoint, without conditional writes."""

    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kept = {name: value for name, value in self.headers.items() if name.lower() not in DROPPED}
            request = AWSRequest(self.command, server.endpoint + self.path, headers=kept, data=body)
            # dropping a header breaks the signature that the client made over it
            S3SigV4Auth(Credentials(KEY, SECRET), "s3", "us-east-1").add_auth(request)
            upstream = http.client.HTTPConnection(server.endpoint.removeprefix("http://"))
            with contextlib.closing(upstream):
                upstream.request(self.command, self.path, body, dict(request.headers.items()))
                answer = upstream.getresponse()
                self.reply(answer, answer.read())

        def reply(self, answer: http.client.HTTPResponse, content: bytes) -> None:
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in DROPPED | {"date", "server"}:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *about: object) -> None:
            """Tests say what they need themselves."""

    for verb in ("GET", "PUT", "HEAD", "DELETE", "POST"):
        setattr(Front, f"do_{verb}", Front.forward)
    front = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    thread = threading.Thread(target=front.serve_forever, daemon=True)
    thread.start()
    try:
        yield replace(server, endpoint=f"http://127.0.0.1:{front.server_port}")
    finally:
        front.shutdown()
        front.server_close()
        thread.join()
