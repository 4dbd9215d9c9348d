"""A Ray of several nodes, each in processes of its own, which may be killed one by one."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests import ray_head
from tests.chaos.scene import descendants, title_of

START_S = 240
DECODING = "avs_core.media.child"
TORCH = "libtorch_cpu"
"""Only the worker with the model loads it."""


class Node:
    """A node beside the head: `ray start --block` and all that it started."""

    def __init__(self, head: ray_head.RayHead, log: Path) -> None:
        command = ["start", f"--address={head.address}", "--block", "--num-cpus=1", "--object-store-memory=200000000"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", *command],
                env={**head.environment, "RAY_USAGE_STATS_ENABLED": "0"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def raylet(self) -> int:
        """Its process id."""
        return next(pid for pid, title in descendants(self._process.pid) if "/raylet/raylet " in title)

    def kill(self) -> None:
        """All of it at once, as when a machine loses its power."""
        everything = [self._process.pid, *(pid for pid, _ in descendants(self._process.pid))]
        for pid in everything:
            _kill(pid)
        self._process.wait()

    @property
    def alive(self) -> bool:
        """Whether `ray start` still watches over it."""
        return self._process.poll() is None


class Cluster:
    """A head with one CPU, and nodes with one each."""

    def __init__(self, head: ray_head.RayHead, folder: Path) -> None:
        self.head = head
        self._folder = folder
        self._nodes: list[Node] = []

    def with_nodes(self, count: int) -> list[Node]:
        """So many nodes that live, beside the head."""
        self._nodes = [node for node in self._nodes if node.alive]
        while len(self._nodes) < count:  # one after the other: two at once take the same sockets
            self._nodes.append(Node(self.head, self._folder / f"node-{time.monotonic_ns()}.txt"))
            wait_for(lambda: self._living() > len(self._nodes), START_S)
        return self._nodes

    def _living(self) -> int:
        """What the head itself says."""
        count = "sum(node['Alive'] for node in ray.nodes())"
        told = f"import ray; ray.init('auto', logging_level='ERROR'); print('alive', {count})"
        asked = subprocess.run(
            [sys.executable, "-c", told], capture_output=True, text=True, env=self.head.environment, timeout=100
        )
        counts = re.findall(r"^alive (\d+)$", asked.stdout, re.MULTILINE)  # Ray may print there too
        return int(counts[0]) if counts else 0

    def workers(self) -> Iterator[tuple[int, str]]:
        """Processes at work for a job, on any node, and what each does: "decode", "model" or "other"."""
        for raylet in self._processes("/raylet/raylet "):
            for pid, title in descendants(raylet):
                if title.startswith("ray::MapWorker"):
                    yield pid, _kind(pid)

    def kill_control(self) -> None:
        """The head's GCS, without which nothing new begins."""
        for pid in self._processes("/gcs/gcs_server "):
            _kill(pid)

    def _processes(self, title: str) -> list[int]:
        """Those of this cluster, on any node."""
        return [pid for pid, found in _everything() if title in found and str(self._folder) in found]

    def end(self) -> None:
        """All nodes."""
        for node in self._nodes:
            if node.alive:
                node.kill()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A head; nodes come when they are asked for."""
    with ray_head.running(folder, *ray_head.free_ports(1), "--num-cpus=1") as head:
        made = Cluster(head, folder)
        try:
            yield made
        finally:
            made.end()


def wait_for(seen: Callable[[], object], seconds: float) -> None:
    """Until it is so."""
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)


def _kind(pid: int) -> str:
    if any(DECODING in title for _, title in descendants(pid)):
        return "decode"
    return "model" if _loaded(pid, TORCH) else "other"


def _loaded(pid: int, library: str) -> bool:
    try:
        return library in Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # gone meanwhile
        return False


def _everything() -> Iterator[tuple[int, str]]:
    return ((int(process.name), title_of(int(process.name))) for process in Path("/proc").glob("[0-9]*"))


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
