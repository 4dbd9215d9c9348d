"""Workers with shares of a GPU and memory of their own on a real Ray, and what they leave in the archive."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avs_core.archive.verify import archive_digest, verify
from tests import ray_head

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ray_head.RayHead]:
    """A Ray that takes itself to have one GPU, and less memory than one decoder may take."""
    folder, port = tmp_path_factory.mktemp("p"), ray_head.free_ports(1)[0]
    with ray_head.running(folder, port, "--num-cpus=2", "--num-gpus=1", f"--memory={1_000_000_000}") as head:
        yield head


def segmented(inputs: Path, archive: Path, environment: dict[str, str] | None, **settings: Any) -> dict[str, Any]:
    command = ["tests.pipelines.guilty", "Peaceful", str(inputs), str(archive), json.dumps(settings)]
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_segmenters_that_share_a_gpu_and_several_committers_leave_the_same_archive(
    small: ray_head.RayHead, tmp_path: Path, demo_clips: list[Path]
) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    for number, clip in enumerate([*demo_clips, *demo_clips]):
        (inputs / f"{number}.mp4").write_bytes(clip.read_bytes())
    shared = {"decode": {"cpus": 0.3}, "segment": {"gpus": 0.5, "memory_mb": 100}, "commit": {"memory_mb": 50}}
    pools = {"address": small.address, "decoders": 2, "segmenters": None, "committers": 3, "resources": shared}
    result = segmented(inputs, tmp_path / "shared", small.environment, **pools)
    assert (result["segmented"], result["dead"], result["failed"]) == (2 * len(demo_clips), 0, 0)
    stats = next((tmp_path / "shared" / "_stats").rglob("*.json")).read_text()
    assert {"decoders": 2, "segmenters": 2, "gpus": 1}.items() <= json.loads(stats).items()
    segmented(inputs, tmp_path / "usual", None)
    assert not verify(str(tmp_path / "shared")).problems
    assert archive_digest(str(tmp_path / "shared")) == archive_digest(str(tmp_path / "usual"))
