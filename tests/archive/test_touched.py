"""What tells a touched file from a changed one: its hash, or an etag that is one."""

import hashlib
import io
from pathlib import Path

import pytest

from avs_core import storage
from avs_core.archive.touched import content_hash
from avs_core.clip import VideoRef

CONTENT = b"a video"
MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("fingerprint", "encrypted", "content", "looks"),
    [
        (f"{MD5}-7", False, "", 1),
        (f"{MD5}-7", True, SHA256, 1),  # it only looks like one
        (f"{MD5}-3-7", False, SHA256, 0),  # uploaded in three parts
    ],
)
def test_content_is_read_where_the_etag_is_no_hash_of_it(
    fingerprint: str, encrypted: bool, content: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(storage, "encrypted_by_key", lambda uri: looked.append(uri) or encrypted)
    monkeypatch.setattr(storage, "open_read", lambda uri: io.BufferedReader(io.BytesIO(CONTENT)))
    assert content_hash(VideoRef("s3://videos/a.mp4", len(CONTENT), fingerprint, 1)) == content
    assert len(looked) == looks


def test_a_file_on_disk_is_always_read(tmp_path: Path) -> None:
    (path := tmp_path / "a.mp4").write_bytes(CONTENT)
    found = storage.info(str(path))
    assert content_hash(VideoRef(found.uri, found.size, found.fingerprint, found.modified_us)) == SHA256
