"""A store is tried as it will be used: a disk and a real S3 server pass, one that forgets conditions does not."""

from pathlib import Path

import pytest

from avs_core import storage
from avs_core.errors import StorageError
from avs_core.storage.examine import StoreFacts, examine


def kept_everything(facts: StoreFacts) -> bool:
    return facts.listed and facts.exclusive and facts.one_winner


def test_a_disk_keeps_what_it_is_told_and_nothing_stays(tmp_path: Path) -> None:
    facts = examine(str(tmp_path / "trial"))
    assert kept_everything(facts)
    assert facts.latency_s > 0
    assert not list(storage.list_files(str(tmp_path)))


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        examine(str(tmp_path / "file" / "trial"))


@pytest.mark.integration
def test_s3_keeps_it_too(s3_bucket: str) -> None:
    assert kept_everything(examine(f"{s3_bucket}/trial"))
    assert not list(storage.list_files(s3_bucket))


@pytest.mark.integration
def test_a_store_that_ignores_conditions_is_found_out(forgetful_bucket: str) -> None:
    facts = examine(f"{forgetful_bucket}/trial")
    assert (facts.listed, facts.exclusive, facts.one_winner) == (True, False, False)
    assert not list(storage.list_files(forgetful_bucket))
