"""A store is tried as it will be used: a disk and a real S3 server pass, one that forgets conditions does not."""

from pathlib import Path

import pytest

from avs_core import storage
from avs_core.errors import AccessDenied, StorageError
from avs_core.storage.examine import StoreFacts, examine


def kept_everything(facts: StoreFacts) -> bool:
    return facts.listed and not facts.absent and facts.exclusive and facts.one_winner


def test_a_disk_keeps_what_it_is_told_and_nothing_stays(tmp_path: Path) -> None:
    facts = examine(str(tmp_path / "trial"))
    assert kept_everything(facts)
    assert facts.latency_s > 0
    assert not list(storage.list_files(str(tmp_path)))


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        examine(str(tmp_path / "file" / "trial"))


def test_a_store_that_says_denied_of_what_is_not_there_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 does, to a role that may not list the bucket."""
    read = storage.read_bytes

    def denied(uri: str) -> bytes:
        if not Path(uri).exists():
            raise AccessDenied("403 Forbidden")
        return read(uri)

    monkeypatch.setattr(storage, "read_bytes", denied)
    facts = examine(str(tmp_path / "trial"))
    assert "403" in facts.absent
    assert facts.listed
    assert not list(storage.list_files(str(tmp_path)))


@pytest.mark.integration
def test_s3_keeps_it_too(s3_bucket: str) -> None:
    assert kept_everything(examine(f"{s3_bucket}/trial"))
    assert not list(storage.list_files(s3_bucket))


@pytest.mark.integration
def test_a_store_that_ignores_conditions_is_found_out(forgetful_bucket: str) -> None:
    facts = examine(f"{forgetful_bucket}/trial")
    assert (facts.listed, facts.absent, facts.exclusive, facts.one_winner) == (True, "", False, False)
    assert not list(storage.list_files(forgetful_bucket))
