"""Parts of a cluster are killed under a job: a worker, the model's actor, a raylet, a node, the driver, the head."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.chaos import nodes
from tests.chaos.nodes import Cluster, wait_for
from tests.chaos.scene import DONE, Scene, end
from tests.s3_server import S3Server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def cluster(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head whose workers find the bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        with nodes.cluster(tmp_path_factory.mktemp("r")) as made:
            yield made


@pytest.mark.parametrize("kind", ["decode", "model"])
def test_a_worker_is_killed(kind: str, scene: Scene, cluster: Cluster) -> None:
    scene.toll.fault = f"cluster: kill -9 of the worker that does: {kind}"
    cluster.with_nodes(2)
    job = scene.start(environment=cluster.head.environment)
    struck: set[int] = set()

    def unharmed() -> int | None:
        """A process of that kind, once there is one."""
        return next((pid for pid, found in cluster.workers() if found == kind and pid not in struck), None)

    for _ in range(2):
        wait_for(lambda: unharmed() or job.poll() is not None, 240)
        if pid := unharmed():
            os.kill(pid, signal.SIGKILL)
            struck.add(pid)
    scene.toll.injected = len(struck)
    assert struck
    end(job, *DONE)
    scene.recover(environment=cluster.head.environment)


@pytest.mark.parametrize("what", ["raylet", "whole node"])
def test_a_node_is_killed(what: str, scene: Scene, cluster: Cluster) -> None:
    scene.toll.fault, scene.toll.injected = f"cluster: kill -9 of a {what}", 1
    victim = cluster.with_nodes(2)[0]
    job = scene.start(environment=cluster.head.environment)
    scene.wait_for(job, commits=1)
    if what == "raylet":
        os.kill(victim.raylet(), signal.SIGKILL)
    else:
        victim.kill()
    end(job, *DONE)
    scene.recover(environment=cluster.head.environment)


def test_the_driver_is_killed_and_the_cluster_lives_on(scene: Scene, cluster: Cluster) -> None:
    scene.toll.fault = "cluster: kill -9 of the driver, twice; the cluster lives on"
    cluster.with_nodes(2)
    for commits in (1, 4):
        job = scene.start(environment=cluster.head.environment)
        scene.wait_for(job, commits)
        job.send_signal(signal.SIGKILL)
        end(job)
        scene.toll.injected += 1
    scene.recover(environment=cluster.head.environment)


def test_the_head_is_killed(scene: Scene, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    scene.toll.fault, scene.toll.injected = "cluster: kill -9 of the head's GCS; the job goes on elsewhere", 1
    with nodes.cluster(tmp_path_factory.mktemp("r")) as doomed:
        doomed.with_nodes(1)
        job = scene.start(environment=doomed.head.environment)
        scene.wait_for(job, commits=2)
        doomed.kill_control()
        end(job, 1)
    scene.recover()
