"""`avs plan` as a person calls it, with a registry and an archive that are real; no Ray is needed to plan."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.stats import JobStats, record_stats
from avs_core.archive.touched import content_hash
from avs_core.clip import VideoRef
from avs_core.models.bundle import load_bundle
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.pyfunc import python_function
from avs_core.pipelines.segment import run_record
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.tracking import register_bundle
from jobs.main import main
from tests.archive import sample
from tests.tiny_bundle import tiny_instances

MODEL = "models:/tiny@night"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of our own, in the folder that the command is called in."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


def planned(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, int]:
    """How many videos are in each state that has any."""
    capsys.readouterr()
    assert main(["plan", "videos", "--archive", "masks", "--model", MODEL, "--json", *flags]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    return {state: count for state, count in line["states"].items() if count}


def segmented(bundle: str, videos: list[VideoRef]) -> None:
    """Commit something for each video in the run that this bundle stands for."""
    writer = ArchiveWriter("masks", run_record(SegmentConfig(archive="masks", model=bundle), load_bundle(bundle)))
    writer.open_run()
    for video in videos:
        hashed = VideoRef(video.uri, video.size, video.fingerprint, video.modified_us, content_hash(video))
        sample.commit(writer, sample.units(hashed)[0])


def test_what_changed_decides_what_is_done_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in "abc":
        (tmp_path / f"videos/{name}.mp4").write_bytes(name.encode() * 100)
    first = tiny_instances(tmp_path / "first")
    register_bundle(Path(first), python_function(), "tiny", "night", default_store=tmp_path / "runs")
    assert planned(capsys) == {"new": 3}
    segmented(first, find_videos(["videos"]))
    assert planned(capsys) == {"done": 3}

    # Files: one touched, one changed, one gone.
    os.utime(tmp_path / "videos/a.mp4", (2e9, 2e9))
    (tmp_path / "videos/b.mp4").write_bytes(b"B" * 100)
    (tmp_path / "videos/c.mp4").rename(tmp_path / "elsewhere.mp4")
    assert planned(capsys, "--deleted") == {"touched": 1, "changed": 1, "deleted": 1}
    assert planned(capsys, "--no-compare") == {"changed": 2}
    (tmp_path / "elsewhere.mp4").rename(tmp_path / "videos/c.mp4")

    # Settings: another threshold, then other weights under the same alias. What the old run has done is stale.
    assert planned(capsys, "--threshold", "0.7") == {"changed": 2, "stale model": 1}
    config = json.loads((tmp_path / "first/config.json").read_text())
    (second := tmp_path / "second").mkdir()
    for file in (tmp_path / "first").iterdir():
        (second / file.name).write_bytes(file.read_bytes())
    (second / "config.json").write_text(json.dumps(config | {"threshold": 0.45}))
    register_bundle(second, python_function(), "tiny", "night", default_store=tmp_path / "runs")
    assert planned(capsys) == {"changed": 2, "stale model": 1}
    register_bundle(Path(first), python_function(), "tiny", "night", default_store=tmp_path / "runs")
    assert planned(capsys) == {"touched": 1, "changed": 1, "done": 1}


def test_a_plan_says_what_it_will_take_and_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"a")
    command = ["plan", "videos", "--archive", "masks", "--out", "plans/tonight.parquet"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "no job has measured anything" in said
    assert "plans/tonight.parquet" in said
    assert [video.uri for video in find_videos(["plans/tonight.parquet"])] == [str(tmp_path / "videos/a.mp4")]


@pytest.mark.parametrize("scheme", ["file", pytest.param("s3", marks=pytest.mark.integration)])
def test_a_plan_goes_where_its_uri_says(scheme: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    out = f"file://{tmp_path}/plans" if scheme == "file" else str(request.getfixturevalue("s3_bucket"))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"a")
    assert main(["plan", "videos", "--archive", "masks", "--out", f"{out}/tonight.parquet"]) == 0
    assert [video.uri for video in find_videos([f"{out}/tonight.parquet"])] == [str(tmp_path / "videos/a.mp4")]
    assert not (tmp_path / f"{scheme}:").exists()  # a folder of that name is what a path makes of it


def test_a_plan_says_what_a_cluster_as_before_costs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/new.mp4").write_bytes(b"n" * 7_200)
    model = tiny_instances(tmp_path / "tiny")
    record = run_record(SegmentConfig(archive="masks", model=model), load_bundle(model))
    writer = ArchiveWriter("masks", record)
    writer.open_run()
    job = JobStats(  # an hour in which four GPUs and 40 CPUs were there, and half of them idle
        started=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=3_600.0,
        videos=1,
        bytes=3_600,
        video_seconds=36_000.0,
        instances=1,
        decode_s=71_000.0,
        segment_s=7_200.0,
        commit_s=1_000.0,
        decoders=48,
        segmenters=4,
        gpus=4,
        cluster_cpus=40.0,
        cluster_gpus=4.0,
    )
    record_stats("masks", writer.run_key, job)
    command = ["plan", "videos", "--archive", "masks", "--model", model]
    prices = ["--price-cpu-hour", "0.05", "--price-gpu-hour", "1.5"]
    assert main([*command, *prices, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["estimate"] == {
        "videos": 1,
        "bytes": 7_200,
        "video_hours": 20.0,
        "hours": 2.0,
        "cpu_hours": 80.0,
        "gpu_hours": 8.0,
        "busy_cpu_hours": 40.0,
        "busy_gpu_hours": 4.0,
        "cost": 16.0,  # 80 h at 0.05 and 8 h at 1.5
    }
    assert main([*command, *prices]) == 0
    said = "80.0 h of its CPUs (40.0 h at work), 8.0 h of its GPUs (4.0 h at work), costs about 16.00"
    assert said in capsys.readouterr().out
    assert main(command) == 0
    assert "costs" not in capsys.readouterr().out
