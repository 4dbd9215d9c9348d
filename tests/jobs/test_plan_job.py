"""`avs plan` as a person calls it, with a registry and an archive that are real; no Ray is needed to plan."""

import json
import os
from pathlib import Path

import pytest

from avs_core.archive.commit import ArchiveWriter
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
