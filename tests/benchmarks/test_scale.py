"""What the benchmark of scale tells, without a job: the job is a stand-in, on a cluster that is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avs_core.pipelines.segment_config import SegmentConfig
from benchmarks import scale


def test_the_limit_of_the_object_store_stands_beside_what_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster: dict[str, float] = {}

    @contextmanager
    def connected(address: str) -> Iterator[None]:
        cluster["object_store_memory"] = 2_500e6
        yield
        cluster.clear()

    def segment(*about: Any) -> SimpleNamespace:
        return SimpleNamespace(dead=0, failed=0, video_seconds=5.0)

    monkeypatch.setattr(scale, "connected", connected)
    monkeypatch.setattr(scale, "segment", segment)
    monkeypatch.setattr("ray.cluster_resources", lambda: dict(cluster))
    for name in ("load_bundle", "run_record", "find_videos"):
        monkeypatch.setattr(scale, name, lambda *about: None)
    rows = list(scale._job("clips", tmp_path, SegmentConfig(archive=str(tmp_path), model="tiny")))
    cases = [row.case for row in rows]
    limit = cases.index("clips: object store, its limit")
    assert cases[limit - 1] == "clips: object store, pages touched"
    assert (rows[limit].value, rows[limit].unit) == (2_500.0, "MB")
