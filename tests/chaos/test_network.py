"""Two hosts with a network between them, which is cut while a job is at work on both.

The hosts are network namespaces, joined by a bridge in a third one: real interfaces, real TCP that gets no answer.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.chaos.conftest import CLIPS
from tests.chaos.scene import DONE, QUIETLY, UNITS, descendants, end, outcome, title_of, units_done
from tests.tolls import Toll

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

PORT = 6379
WATCHFUL = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""A node that does not answer is given up after some seconds, not after half a minute."""
SHORT_S, LONG_S = 2.0, 40.0
LOST_NODE_S = 30.0
"""What is left of the cluster may be too full to go on."""


class Network:
    """Hosts `one` (10.77.0.1) and `two` (10.77.0.2) on one switch."""

    def __init__(self) -> None:
        self._mark = f"avs{os.getpid()}"

    def host(self, name: str) -> str:
        """The namespace of a host."""
        return f"{self._mark}{name}"

    def build(self) -> None:
        """Namespaces, cables, addresses."""
        for name in ("switch", "one", "two"):
            _ip("netns", "add", self.host(name))
            _ip("-n", self.host(name), "link", "set", "lo", "up")
        _ip("-n", self.host("switch"), "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.host("switch"), "link", "set", "bridge", "up")
        for number, name in enumerate(("one", "two"), 1):
            switch, host = self.host("switch"), self.host(name)
            _ip("-n", switch, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", host)
            _ip("-n", switch, "link", "set", f"to-{name}", "master", "bridge", "up")
            _ip("-n", host, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")
            _ip("-n", host, "route", "add", "default", "dev", "eth0")  # Ray asks which address would go out

    @contextmanager
    def cut(self) -> Iterator[None]:
        """While the block lasts, host two hears nothing and is not heard."""
        _ip("-n", self.host("switch"), "link", "set", "to-two", "down")
        try:
            yield
        finally:
            _ip("-n", self.host("switch"), "link", "set", "to-two", "up")

    def remove(self) -> None:
        """All of it."""
        for name in ("one", "two", "switch"):
            subprocess.run(["ip", "netns", "delete", self.host(name)], check=False, capture_output=True)

    def start(self, name: str, *command: str, log: Path, **environment: str) -> "subprocess.Popen[str]":
        """A command on a host."""
        settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", **WATCHFUL, **environment}
        with log.open("w") as output:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.host(name), sys.executable, "-m", *command],
                env={**os.environ, **settings},
                stdout=subprocess.PIPE if command[0].startswith("jobs.") else output,
                stderr=subprocess.PIPE if command[0].startswith("jobs.") else output,
                text=True,
                start_new_session=True,
            )


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def network() -> Iterator[Network]:
    """Two hosts, where this machine lets us make them."""
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("network namespaces need iproute2 and root")
    made = Network()
    try:
        made.build()
    except subprocess.CalledProcessError as refused:
        made.remove()
        pytest.skip(f"network namespaces can't be made here: {refused.stderr.strip()}")
    yield made
    made.remove()


@pytest.fixture
def cluster(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray with a node on each host."""
    folder = tmp_path_factory.mktemp("n")
    address = f"10.77.0.1:{PORT}"
    common = ("ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--object-store-memory=200000000")
    head = (
        "--head",
        f"--port={PORT}",
        "--node-ip-address=10.77.0.1",
        f"--temp-dir={folder}",
        "--include-dashboard=false",
    )
    with ExitStack() as started:
        for number, (name, more) in enumerate({"one": head, "two": (f"--address={address}",)}.items(), 1):
            log = folder.with_name(f"{folder.name}-{name}.txt")
            process = network.start(name, *common, *more, f"--node-ip-address=10.77.0.{number}", log=log)
            started.callback(_end, process)
            deadline = time.monotonic() + 120
            while "Ray runtime started" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield address


def _end(process: "subprocess.Popen[str]") -> None:
    for pid, _ in list(descendants(process.pid)):
        _kill(pid)
    process.kill()
    process.wait()


def _kill(pid: int) -> None:
    if title_of(pid):
        os.kill(pid, 9)


@pytest.mark.parametrize(
    ("cut_s", "how_long"), [(SHORT_S, "shorter than Ray minds"), (LONG_S, "until the node is given up")]
)
def test_the_network_is_cut(
    cut_s: float, how_long: str, network: Network, cluster: str, tmp_path: Path, demo_clips: list[Path], toll: Toll
) -> None:
    toll.fault, toll.injected = f"network: cut for {cut_s:.0f} s, {how_long}", 1
    videos, archive, undisturbed = tmp_path / "videos", tmp_path / "archive", tmp_path / "undisturbed"
    videos.mkdir()
    for clip in demo_clips[:CLIPS]:
        (videos / clip.name).write_bytes(clip.read_bytes())

    def job(place: Path) -> "subprocess.Popen[str]":
        where = ("--archive", str(place), "--address", cluster, "--lost-node-s", f"{LOST_NODE_S:.0f}")
        command = ("jobs.segment", str(videos), *where, *QUIETLY, *UNITS)
        return network.start("one", *command, log=tmp_path / "job.txt")

    end(job(undisturbed), 0)
    began = time.monotonic()
    disturbed = job(archive)
    while disturbed.poll() is None and not units_done(str(archive)):
        time.sleep(0.1)
    assert disturbed.poll() is None
    with network.cut():
        time.sleep(cut_s)
    end(disturbed, 1, *DONE)
    end(job(archive), 0)
    toll.lost_s = time.monotonic() - began
    assert outcome(str(archive)) == outcome(str(undisturbed))
    toll.survived = True
