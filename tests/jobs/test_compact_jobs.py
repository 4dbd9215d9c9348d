"""`avs compact`, `avs gc` and `avs snapshots` on one archive."""

import json
from pathlib import Path

import pytest

from avs_core.archive.read import open_archive
from jobs.main import DONE, USAGE, main
from tests.archive import sample


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """An archive of three videos."""
    writer = sample.opened(uri := str(tmp_path / "archive"))
    for name in "abc":
        sample.commit(writer, sample.units(sample.video(name))[0])
    return uri


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return dict(json.loads(capsys.readouterr().out))


def test_from_small_files_to_a_clean_archive(archive: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = open_archive(archive).count_rows()
    assert main(["compact", archive, "--json"]) == DONE
    assert told(capsys)["units"] == 3
    assert main(["snapshots", archive, "--json"]) == DONE
    listed = told(capsys)
    assert (listed["number"], listed["rows"], listed["files"]) == (1, rows, 1)
    assert main(["gc", archive, "--older-than-days", "0", "--dry-run", "--json"]) == DONE
    would = told(capsys)
    assert would["dry_run"] is True
    assert main(["gc", archive, "--older-than-days", "0", "--json"]) == DONE
    assert told(capsys)["removed"] == would["removed"]
    assert main(["verify", archive]) == DONE
    assert open_archive(archive).count_rows() == rows


def test_each_says_in_words_what_it_did(archive: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compact", archive, "--target-mb", "1"])
    assert "3 units taken up" in capsys.readouterr().out
    main(["snapshots", archive])
    assert " 1 snapshot " in capsys.readouterr().out
    main(["gc", archive])
    assert "0 files removed" in capsys.readouterr().out


def test_what_makes_no_sense_is_wrong_usage(archive: str) -> None:
    assert main(["gc", archive, "--keep", "0"]) == USAGE
    assert main(["compact", archive, "--target-mb", "0"]) == USAGE
    assert main(["snapshots", archive, "--run", "r0"]) == USAGE
