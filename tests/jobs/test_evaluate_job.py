"""`avs evaluate` on the command line, where it needs no Ray."""

import json
from pathlib import Path

import pytest

from avs_core.archive.schema import FrameRow, frame_table, instance_table
from avs_core.clip import Unit, VideoRef
from avs_core.datasets.opening import open_dataset
from jobs.main import DONE, USAGE, main
from tests.archive.sample import RECORD, instance, opened
from tests.avsbench_fixtures import write_benchmark


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tpavi-light", "nowhere"], "nowhere"),
        (["tpavi-light", "data", "--archive", "masks"], "without a model"),
        (["data", "--archive", "masks"], "masks"),
        (["tpavi-light", "data", "--split", "dev", "--workers", "0"], "dev"),
        (["tpavi-light", "data", "--limit", "0"], "limit"),
    ],
)
def test_wrong_usage_is_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_benchmark(Path("data"), {"train": 1, "val": 1, "test": 1})
    assert main(["evaluate", *arguments, "--no-tracking"]) == USAGE
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_an_archive_is_scored_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    data = open_dataset(str(write_benchmark(Path("data"), {"train": 1, "val": 1, "test": 2})))
    writer = opened("masks", RECORD)
    refs = data.clips("test")
    for ref in refs[1:]:
        masks = data.load(ref, 224).masks
        unit = Unit(VideoRef(f"s3://videos/{ref.clip_id}.mp4", 1, "f-1", 1), 0, ref.seconds)
        rows = [
            FrameRow(s, 0, s, s * 1_000_000 + 937_500, 224, 224, True, (), (instance(m),) if m.any() else ())
            for s, m in enumerate(masks)
        ]
        writer.commit_unit(unit, instance_table(unit.video, rows), frame_table(unit.video, rows))
    arguments = ["evaluate", "data", "--archive", "masks", "--no-tracking", "--out", "out"]
    assert main([*arguments, "--json"]) == DONE
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["miou"] == pytest.approx(1, abs=1e-6)
    assert json.loads(Path("out/evaluation.json").read_text())["left_out"] == [refs[0].clip_id]
    assert main(arguments) == DONE
    said = capsys.readouterr().out
    assert f"1 clips are in no figure: {refs[0].clip_id}" in said
    assert "…" not in said
