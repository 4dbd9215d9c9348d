"""A bundle as a function: its rows are those of the main job's archive, and what it can't read it names."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import avs_core
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.read import open_archive
from avs_core.archive.schema import ROW_SCHEMA
from avs_core.errors import BundleError, ConfigError, InputError, TooManyDeadLetters
from avs_core.models.bundle import BUILTIN, load_bundle
from avs_core.pipelines import wire
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.model_stage import SegmentUnit
from avs_core.pipelines.pyfunc import OUTPUTS, _load_pyfunc, python_function
from avs_core.pipelines.segment import run_record
from avs_core.pipelines.segment_config import DEFAULT_MODEL, LookConfig, SegmentConfig
from avs_core.pipelines.stages import OK, CommitUnit, DecodeUnit, ProbeVideo, new_row, row_to_probe
from avs_core.tracking import register_bundle
from tests.media.clips import CHIRP
from tests.media.recipes import MPG
from tests.tiny_bundle import tiny_instances

ORDER = [("video_uri", "ascending"), ("object_id", "ascending"), ("frame_time_us", "ascending")]

CLEAN_PROCESS = """
import json, sys
import mlflow.pyfunc, pandas, pyarrow, pyarrow.parquet

model = mlflow.pyfunc.load_model(sys.argv[1])
frame = model.predict(pandas.DataFrame({"video_uri": sys.argv[3:]}))
pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame, preserve_index=False), sys.argv[2])
print(json.dumps({"package": sys.modules["avs_core"].__file__, "ray": "ray" in sys.modules}))
"""


def videos_of(*videos: str | Path) -> pd.DataFrame:
    return pd.DataFrame({"video_uri": [str(video) for video in videos]})


def small(**more: Any) -> Any:
    """The built-in bundle with masks that are quick to encode."""
    return _load_pyfunc(str(BUILTIN / "tpavi-light"), {"mask_size": [24, 32], "device": "cpu", **more})


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return list(pa.Table.from_pandas(frame, schema=OUTPUTS, preserve_index=False).sort_by(ORDER).to_pylist())


def rows_in(archive: str) -> list[dict[str, Any]]:
    return list(open_archive(archive).to_table().cast(OUTPUTS).sort_by(ORDER).to_pylist())


def through_the_stages(clips: list[Path], config: SegmentConfig) -> None:
    """What the main job does, in this process."""
    bundle = load_bundle(config.model)
    record = run_record(config, bundle)
    decode, limits = config.decode_config(bundle.config.size), config.decode_limits()
    ArchiveWriter(config.archive, record).open_run()
    rest = SegmentUnit(config.model, "cpu", config.threshold, config.mask_size), CommitUnit(config.archive, record)
    with (
        closing(ProbeVideo(decode, limits, config.unit_length_s)) as probe,
        closing(DecodeUnit(decode, limits)) as look,
    ):
        for video in find_videos(map(str, clips)):
            for text in probe(row_to_probe(video))["units"].splitlines():
                row = look(new_row(wire.unit_from_text(text)))
                for stage in rest:
                    row = stage(row)
                assert row["status"] == OK


def test_rows_are_those_of_an_archive_with_the_same_settings(demo_clips: list[Path], tmp_path: Path) -> None:
    model = tiny_instances(tmp_path / "tiny")
    settings: dict[str, Any] = {"rate": 2, "unit_s": 10, "threshold": 0.3, "mask_size": (45, 80)}
    config = SegmentConfig(archive=str(tmp_path / "archive"), model=model, **settings)
    through_the_stages(demo_clips[:2], config)
    frame = _load_pyfunc(model, {**settings, "device": "cpu"}).predict(videos_of(*reversed(demo_clips[:2])))
    truth = rows_in(config.archive)
    assert rows_of(frame) == truth
    assert {row["category"] for row in truth} > {None}
    assert list(frame["video_uri"].unique()) == [str(clip) for clip in reversed(demo_clips[:2])], "in the order asked"
    assert list(frame.columns) == ROW_SCHEMA.names


def test_frames_that_nobody_can_number_have_no_number(tmp_path: Path) -> None:
    """In a later unit of an MPEG program stream either; between the stages too, where no number is no number."""
    path = MPG.but("stream.mpg", frames=375, sound=CHIRP.format(d=15, r=48_000)).make(tmp_path)
    model = tiny_instances(tmp_path / "tiny")
    settings: dict[str, Any] = {"unit_s": 5, "threshold": 0.3}
    config = SegmentConfig(archive=str(tmp_path / "archive"), model=model, **settings)
    through_the_stages([path], config)
    truth = rows_in(config.archive)
    assert {row["frame_index"] for row in truth} == {-1}
    assert max(row["frame_time_us"] for row in truth) > 10_000_000
    assert rows_of(_load_pyfunc(model, {**settings, "device": "cpu"}).predict(videos_of(path))) == truth


def test_a_video_is_asked_once_and_none_gives_no_rows(demo_clips: list[Path]) -> None:
    ask = small()
    once = ask.predict(videos_of(demo_clips[0]))
    assert rows_of(ask.predict(videos_of(demo_clips[0], demo_clips[0]))) == rows_of(once)
    none = ask.predict(videos_of())
    assert (len(none), list(none.columns)) == (0, ROW_SCHEMA.names)


def test_threads_take_turns_and_torch_keeps_its_own(demo_clips: list[Path]) -> None:
    ask, before = small(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(2) as pool:
            one, two = pool.map(ask.predict, [videos_of(clip) for clip in demo_clips[:2]])
        assert torch.get_num_threads() == 2
        assert rows_of(ask.predict(videos_of(*demo_clips[:2]))) == rows_of(one) + rows_of(two)
    finally:
        torch.set_num_threads(before)


def test_every_video_that_is_at_fault_is_named_in_one_error(demo_clips: list[Path], tmp_path: Path) -> None:
    (page := tmp_path / "page.mp4").write_text("<html>not found</html>")
    (cut := tmp_path / "cut.mp4").write_bytes(demo_clips[0].read_bytes()[:20_000])
    with pytest.raises(TooManyDeadLetters) as told:
        small().predict(videos_of(page, demo_clips[0], cut, tmp_path / "gone.mp4"))
    for part in ("3 of 4", f"{page}: unreadable: ", f"{cut}: unreadable: ", f"{tmp_path}/gone.mp4: denied: "):
        assert part in str(told.value)
    assert str(demo_clips[0]) not in str(told.value)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pd.DataFrame({"path": ["a.mp4"]}), "DataFrame with path"),
        (["a.mp4"], "list with no columns"),
        (pd.DataFrame({"video_uri": ["a.mp4", None]}), "1 of 2 are not: "),
        (pd.DataFrame({"video_uri": ["ftp://host/a.mp4"]}), "s3://"),
    ],
)
def test_a_table_without_paths_says_what_is_missing(table: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        small().predict(table)


@pytest.mark.parametrize("settings", [{"rate": 0}, {"rat": 1}, {"device": "cuda"}, {"decoder": "none"}])
def test_settings_that_cannot_be_are_refused_when_the_model_is_loaded(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError):
        _load_pyfunc(str(BUILTIN / "tpavi-light"), settings)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no config"):
        _load_pyfunc(str(tmp_path))


def test_what_mlflow_is_told_loads_what_it_names() -> None:
    told = python_function()
    assert getattr(sys.modules[told.loader], "_load_pyfunc") is _load_pyfunc  # noqa: B009 - by the name MLflow uses
    assert LookConfig.model_validate(told.settings) == LookConfig()
    assert pa.Table.from_pylist([*told.example], told.inputs).num_rows == 1
    assert told.requirements[0].startswith("avs-on-ray")


@pytest.mark.integration
@pytest.mark.ci_slice
def test_a_clean_process_asks_a_registered_bundle(demo_clips: list[Path], tmp_path: Path) -> None:
    config = SegmentConfig(archive=str(tmp_path / "archive"))
    through_the_stages(demo_clips[:2], config)
    assert asked_in_a_clean_process(demo_clips[:2], tmp_path) == rows_in(config.archive) != []


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_registered_bundle_gives_the_rows_of_the_main_job(demo_clips: list[Path], tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    segment = [sys.executable, "-m", "jobs.main", "segment", *map(str, demo_clips), "--archive", archive]
    finished(*segment, "--no-report", "--no-tracking", "--device", "cpu", cwd=tmp_path, env=dict(os.environ))
    rows, truth = asked_in_a_clean_process(demo_clips, tmp_path), rows_in(archive)
    assert [row["counts"] for row in rows] == [row["counts"] for row in truth] != []
    assert rows == truth


def asked_in_a_clean_process(clips: list[Path], folder: Path) -> list[dict[str, Any]]:
    """Register the built-in bundle; a new interpreter elsewhere, which knows of the store alone, loads and asks it."""
    store, package = folder / "a store", Path(avs_core.__file__)
    register_bundle(BUILTIN / DEFAULT_MODEL, python_function(), "sounding", "best", default_store=store)
    clean = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(package.parents[1]),
        "CUDA_VISIBLE_DEVICES": "",
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db",
    }
    ask = [sys.executable, "-c", CLEAN_PROCESS, "models:/sounding@best", "rows.parquet", *map(str, clips)]
    (elsewhere := folder / "elsewhere").mkdir()
    said = finished(*ask, cwd=elsewhere, env=clean)
    assert json.loads(said.splitlines()[-1]) == {"package": str(package), "ray": False}
    return rows_of(pq.read_table(elsewhere / "rows.parquet").to_pandas())


def finished(*command: str, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
