"""What the main job hands on to its workers."""

from pathlib import Path

import pytest

from avs_core.pipelines import main_job
from avs_core.pipelines.job_config import JobConfig
from avs_core.pipelines.main_job import Handed
from avs_core.tracking import ResolvedModel
from tests.archive import sample

FETCHED = ResolvedModel(Path("/home/me/.cache/avs/models/tiny-3-ab"), "tiny", "3")


@pytest.mark.parametrize(
    ("given", "environment", "handed"),
    [
        ("http://registry:5000", None, Handed("models:/tiny/3", "http://registry:5000")),
        ("HTTPS://registry", "http://another", Handed("models:/tiny/3", "HTTPS://registry")),
        (None, "http://registry:5000", Handed("models:/tiny/3", "http://registry:5000")),
        (None, "databricks", Handed("models:/tiny/3", None)),
        ("sqlite:///mine.db", "http://registry:5000", Handed(str(FETCHED.folder), None)),
        (None, None, Handed(str(FETCHED.folder), None)),
    ],
)
def test_what_lies_on_a_server_is_fetched_there_by_each_worker(
    monkeypatch: pytest.MonkeyPatch, given: str | None, environment: str | None, handed: Handed
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if environment is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    monkeypatch.setattr(main_job, "fetch_model", lambda model, tracking_uri, default_store: FETCHED)
    assert main_job.handed_on("models:/tiny@best", given, Path("out")) == handed


def test_a_bundle_that_is_no_registered_model_is_handed_on_as_it_is() -> None:
    assert main_job.handed_on("tpavi-light", "http://registry:5000", Path("out")) == Handed("tpavi-light", None)


def test_folders_are_whole_paths_for_workers_that_have_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main_job.handed_on("bundles/mine", None, Path("out")).model == str(tmp_path / "bundles/mine")
    assert main_job.handed_on("s3://bucket/mine", None, Path("out")).model == "s3://bucket/mine"
    assert main_job.SegmentConfig(archive="masks").archive == str(tmp_path / "masks")


def test_the_job_gives_its_workers_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, object] = {}

    class Enough(Exception):
        pass

    def segmented(videos: object, config: object, *rest: object, registry: str | None) -> None:
        given.update(model=getattr(config, "model", None), registry=registry)
        raise Enough

    video = sample.video()
    folder = main_job.resolve_model("tpavi-light")
    monkeypatch.setattr(main_job, "find_videos", lambda inputs: [video])
    monkeypatch.setattr(main_job, "handed_on", lambda *asked: Handed("models:/tiny/3", "http://registry:5000"))
    monkeypatch.setattr(main_job, "resolve_model", lambda model, tracking_uri=None: folder)
    monkeypatch.setattr(main_job, "segment", segmented)
    config = main_job.SegmentConfig(archive=str(tmp_path / "archive"), model="models:/tiny@best")
    job = JobConfig(out=str(tmp_path), tracking=False, report=False, tracking_uri="http://registry:5000")
    with pytest.raises(Enough):
        main_job.run_main_job(["videos"], config, job)
    assert given == {"model": "models:/tiny/3", "registry": "http://registry:5000"}
