"""Both stages of paper 2 in two processes: what is frozen in each, and what one process alone would not have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avs_core.datasets.sources import Sources
from avs_core.models.bundle import load_bundle
from tests.training import instance_job
from tests.training.driving import QUICK


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_train_both_stages_and_leave_a_bundle(tiny_sources: Sources, tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.json"
    catalogue.write_text(tiny_sources.catalogue.model_dump_json())
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [*launcher, instance_job.__file__, str(tmp_path / "out"), str(tiny_sources.root), str(catalogue)],
        env=os.environ | QUICK,
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    left = list((tmp_path / "out").glob("**/bundle"))
    assert {load_bundle(folder).categories for folder in left} == {tuple(tiny_sources.categories)}
