"""`avs data check`: what it prints and its exit codes; and that training refuses what it finds damaged."""

import json
from pathlib import Path

import pytest

from jobs.main import DONE, FAILED, USAGE, main
from tests import avsbench_fixtures as tiny


def test_a_sound_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_ms3(tmp_path)
    assert main(["data", "check", str(tmp_path), "--deep"]) == DONE
    shown = capsys.readouterr().out
    assert "AVSBench MS3" in shown
    assert "test-leak-free" in shown
    assert "sound (every file decoded)" in shown


def test_a_damaged_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = "ms3_data/gt_masks/val/m3val--0000_0/m3val--0000_0_2.png"
    (tiny.write_ms3(tmp_path) / missing).unlink()
    assert main(["data", "check", str(tmp_path)]) == FAILED
    shown = capsys.readouterr().out
    assert f"missing: {missing}" in shown
    assert "damaged: 1 findings (files listed, not decoded" in shown
    assert main(["data", "check", str(tmp_path), "--split", "train", "--json"]) == DONE
    told = json.loads(capsys.readouterr().out)
    assert told["sound"] is True
    assert [(one["split"], one["clips"]) for one in told["splits"]] == [("train", 3)]


def test_a_wrong_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tmp_path / "nowhere")]) == USAGE
    assert "check the path" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path), "--kind", "s4"]) == USAGE


def test_a_damaged_copy_is_not_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check comes before anything else: no VGGish, no engine is needed to fail."""
    data = tiny.write_ms3(tmp_path / "data")
    (data / "ms3_data/audio_wav/train/m3train0000_0.wav").unlink()
    arguments = ["train", "ms3-r50", "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(arguments) == FAILED
    assert "a data set must be whole" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
