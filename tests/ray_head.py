"""A Ray head for tests, as `ray start` makes it: in processes of its own, on free ports of this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray

START_S = 120
PORTS = range(6400, 9900)
"""Below those that Ray gives to its workers."""


@dataclass(frozen=True)
class RayHead:
    """Where it listens, where Prometheus may scrape it, and what a driver needs."""

    address: str
    metrics_port: int

    @property
    def environment(self) -> dict[str, str]:
        """Of a driver."""
        return {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": self.address}


@contextlib.contextmanager
def running(folder: Path, gcs_port: int, *arguments: str) -> Iterator[RayHead]:
    """A head with one or more CPUs as the arguments say; it and all nodes of its session end with the block."""
    metrics_port = free_ports(1, avoid=gcs_port)[0]
    command = ["start", "--head", "--block", f"--port={gcs_port}", f"--metrics-export-port={metrics_port}"]
    fixed = ["--include-dashboard=false", "--object-store-memory=300000000", f"--temp-dir={folder}"]
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_FAKE_CLUSTER": "1"}
    with (folder / "log.txt").open("wb") as log:
        head = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *command, *fixed, *arguments],
            env={**os.environ, **environment, "AUTOSCALER_UPDATE_INTERVAL_S": "1"},
            stdout=log,
            stderr=log,
        )
        try:
            _wait(metrics_port, head, folder / "log.txt")
            yield RayHead(f"{ray.util.get_node_ip_address()}:{gcs_port}", metrics_port)
        finally:
            head.terminate()
            head.wait(60)
            _end_all(folder)


def free_ports(count: int, avoid: int = 0) -> list[int]:
    """Ports that nobody listens on."""
    found: list[int] = []
    for port in PORTS[os.getpid() % 1500 :]:
        with socket.socket() as tried:
            if port != avoid and tried.connect_ex(("127.0.0.1", port)):
                found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports")


def _wait(port: int, head: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while head.poll() is None and time.monotonic() < deadline:
        with socket.socket() as tried:
            if not tried.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.5)
    raise RuntimeError(f"Ray did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _end_all(folder: Path) -> None:
    """Nodes that the autoscaler started outlive their head; they name the session's folder."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                if str(folder) in (process / "cmdline").read_text(errors="replace"):
                    os.kill(int(process.name), signal.SIGKILL)
