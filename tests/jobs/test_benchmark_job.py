"""`avs benchmark build` as a user meets it: exit codes and messages before anything is fetched or drawn."""

from pathlib import Path

import pytest

from jobs.main import DONE, FAILED, USAGE, main


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    assert main(["benchmark", "build", "--out", str(tmp_path / "file/bench")]) == FAILED
    assert "could not" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--scale", "huge"],
        ["--seed=-1"],
        ["--workers", "0"],
        ["--out", "https://example.org/bench"],
    ],
)
def test_wrong_usage(wrong: list[str], tmp_path: Path) -> None:
    out = [] if wrong[0] == "--out" else ["--out", str(tmp_path)]
    assert main(["benchmark", "build", *out, *wrong]) == USAGE


def test_another_benchmark_at_the_same_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.json").write_text('{"version": "other"}')
    assert main(["benchmark", "build", "--out", str(tmp_path)]) == USAGE
    assert "another place" in capsys.readouterr().err.replace("\n", " ")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "build", "--help"]) == DONE
    assert "--scale" in capsys.readouterr().out
