import glob as stdlib_glob
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avs_core import storage
from avs_core.errors import (
    AccessDenied,
    AlreadyExists,
    InputError,
    NotApplied,
    NotFound,
    StorageError,
)
from avs_core.storage import s3 as s3_store

WRITERS = 8


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.integration)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place, on disk and on a real S3 server."""
    return str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("s3_bucket")) + "/some/prefix"


# What a URI may be


def test_a_local_path_has_one_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    want = f"{tmp_path}/a b.mp4"
    texts = ("a b.mp4", "./a b.mp4", "x/../a b.mp4", f"{tmp_path}//a b.mp4", f"//{tmp_path}/a b.mp4")
    for text in (*texts, f"file://{tmp_path}/a%20b.mp4", f"file:///{tmp_path}/a%20b.mp4"):
        assert storage.normalise(text) == want
    assert storage.normalise(f"file://localhost{tmp_path}/a b.mp4") == want
    assert storage.normalise("s3://bucket/a/b/") == "s3://bucket/a/b"


@pytest.mark.parametrize(
    "uri", ["http://h/x", "gs://b/x", "memory://x", "", "a\0b", "file://host/x", "s3://", "s3://b/../c", "s3:///k"]
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(InputError):
        storage.normalise(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIAKEY:hunter2@bucket/key",
        "https://user:hunter2@host/key",
        "s3://bucket/key?X-Amz-Signature=hunter2",
        "https://host/key?AWSAccessKeyId=a&Signature=hunter2",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(InputError) as refused:
        storage.normalise(uri)
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in storage.redacted(uri)


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/a", "a//b", "./a", "a/", "a\0"])
def test_a_name_can_not_lead_out_of_its_folder(name: str) -> None:
    with pytest.raises(InputError):
        storage.join("s3://bucket/folder", name)


def test_relative_undoes_join() -> None:
    assert storage.join("/a", "b", "c/d.x") == "/a/b/c/d.x"
    assert storage.relative("/a/b/c/d.x", "/a") == "b/c/d.x"
    with pytest.raises(InputError):
        storage.relative("/ab/c", "/a")


# Reading and writing


def test_what_can_not_be_a_file_is_not_found(tmp_path: Path) -> None:
    """Today or tomorrow: a job that meets one must not wait for it."""
    (loop := tmp_path / "loop").symlink_to(loop)
    for path in (tmp_path, loop, tmp_path / ("n" * 300)):
        with pytest.raises(NotFound):
            storage.read_bytes(str(path))
        with pytest.raises(NotFound):
            storage.info(str(path))


def test_what_is_written_is_read(root: str) -> None:
    uri = storage.join(root, "a/b c?#%.bin")
    for content in (b"one", b"", b"three" * 100_000):
        storage.write_bytes(uri, content)
        assert storage.read_bytes(uri) == content
        assert storage.info(uri).size == len(content)
        assert [found.uri for found in storage.list_files(root)] == [uri]
    assert storage.exists(uri)
    assert storage.is_file(uri)
    assert not storage.is_directory(uri)
    assert storage.is_directory(storage.join(root, "a"))
    assert not storage.is_file(storage.join(root, "a"))
    assert not storage.exists(storage.join(root, "nothing"))
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.is_file(uri)


def test_a_file_is_seekable(root: str) -> None:
    content = bytes(range(256)) * 4096
    uri = storage.join(root, "file")
    storage.write_bytes(uri, content)
    with storage.open_read(uri) as file:
        assert file.seekable()
        assert file.seek(-300, os.SEEK_END) == len(content) - 300
        assert file.read() == content[-300:]
        file.seek(1000)
        assert file.read(70_000) == content[1000:71_000]
        assert file.tell() == 71_000


def test_what_is_not_there_is_not_found(root: str) -> None:
    uri = storage.join(root, "nothing")
    reads: list[Callable[[str], object]] = [storage.read_bytes, storage.info, storage.open_read]
    for read in reads:
        with pytest.raises(NotFound, match="nothing"):
            read(uri)
    assert list(storage.list_files(uri)) == []


def test_a_listing_and_a_look_give_the_same_facts(root: str) -> None:
    for name in ("a", "b/c"):
        storage.write_bytes(storage.join(root, name), name.encode())
    for found in storage.list_files(root):
        assert storage.info(found.uri) == found
        assert found.modified_us > 1_600_000_000_000_000


def test_other_content_has_another_fingerprint(root: str) -> None:
    uri = storage.join(root, "a")
    storage.write_bytes(uri, b"1")
    before = storage.info(uri).fingerprint
    storage.write_bytes(uri, b"2")
    assert storage.info(uri).fingerprint != before


def test_a_listing_holds_everything_once(root: str) -> None:
    names = ["a-b", "a/z", "a.b/c", "a0", "b", "é/x", "Z"]
    for name in names:
        storage.write_bytes(storage.join(root, name), b"")
    listed = [storage.relative(found.uri, root) for found in storage.list_files(root)]
    assert sorted(listed) == sorted(names)
    if not root.startswith("s3://"):  # SeaweedFS goes through its folders in turn, AWS sorts keys
        assert listed == sorted(names, key=str.encode)
    flat = [storage.relative(found.uri, root) for found in storage.list_files(root, recursive=False)]
    assert flat == [name for name in listed if "/" not in name]


@pytest.mark.integration
def test_a_listing_goes_over_many_pages(s3_bucket: str) -> None:
    names = [f"{index:04d}" for index in range(1100)]  # a page of S3 holds 1000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: storage.write_bytes(storage.join(s3_bucket, "many", name), b""), names))
    assert [found.uri[-4:] for found in storage.list_files(storage.join(s3_bucket, "many"))] == names


PATTERNS = ["*.mp4", "a/*", "a/?.mp4", "**/*.mp4", "**", "[ab]/*.mp4", "[!a]/*", "a/**/y.mp4", "*/*", "x.mp4", "no*"]
PATTERNS += [
    "[!]]",
    "[]!]",
    "[!]",
    "[^a]/x.mp4",
    "[[]",
    "[!-b]*",
    "[!-b]",
    "[a&&b]/x.mp4",
    "[-a]/x.mp4",
    "**/*line*",
    "a\nline/*",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_glob_finds_what_the_standard_library_finds(root: str, tmp_path: Path, pattern: str) -> None:
    mirror = tmp_path / "mirror"
    plain = ("x.mp4", "a/x.mp4", "a/y.mp4", "a/b/y.mp4", "b/x.mp4", "c/x.txt", "a/xx.mp4")
    for name in (*plain, "]", "!", "[", "^", "a\nline/a line.mp4"):
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_bytes(b"")
        storage.write_bytes(storage.join(root, "tree", name), b"")
    found = [
        storage.relative(entry.uri, storage.join(root, "tree")) for entry in storage.glob(f"{root}/tree/{pattern}")
    ]
    expected = {
        name
        for name in stdlib_glob.glob(pattern, root_dir=mirror, recursive=True)  # noqa: PTH207  # the oracle
        if (mirror / name).is_file()
    }
    assert sorted(found) == sorted(expected)


def test_a_fault_of_the_disk_within_a_file_is_the_stores() -> None:
    with storage.open_read("/proc/self/mem") as file, pytest.raises(NotApplied, match="could not read /proc/self/mem"):
        file.read(10)  # where nothing is mapped: the same error as of a bad sector
    with storage.open_read("/proc/self/mem") as file, pytest.raises(NotApplied):
        file.read()


@pytest.mark.parametrize("listed", ["folder", "folder/*"])
def test_who_may_not_look_at_a_file_of_a_listing_is_told(tmp_path: Path, listed: str) -> None:
    """As another user than root, which may look at everything."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/a.mp4").write_bytes(b"a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a.mp4").symlink_to(tmp_path / "closed/a.mp4")
    (tmp_path / "folder/nowhere.mp4").symlink_to("x" * 300)
    assert [found.size for found in storage.glob(str(tmp_path / "folder/*"))] == [1]
    (tmp_path / "closed").chmod(0)
    code = (
        "import os, sys; from avs_core import storage; from avs_core.errors import AccessDenied\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: print([*(storage.glob if '*' in sys.argv[1] else storage.list_files)(sys.argv[1])])\n"
        "except AccessDenied as error: print('denied:', error)"
    )
    for folder in [tmp_path / "folder", tmp_path, *tmp_path.parents]:
        if Path(tempfile.gettempdir()) in folder.parents:  # pytest's own
            folder.chmod(0o755)
    try:
        said = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / listed)], check=True, capture_output=True, text=True
        )
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert said.stdout.startswith(f"denied: could not look at {tmp_path}/folder/a.mp4")


def test_a_glob_needs_its_bucket() -> None:
    with pytest.raises(InputError, match="bucket"):
        list(storage.glob("s3://buck*/x"))


def test_arrow_reads_through_the_same_door(root: str) -> None:
    table = pa.table({"x": [1, 2, 3]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    uri = storage.join(root, "t.parquet")
    storage.write_bytes(uri, bytes(sink.getvalue()))
    filesystem, path = storage.arrow_filesystem(uri)
    assert pq.read_table(path, filesystem=filesystem).equals(table)


# Exclusive writes


def test_a_taken_key_is_left_alone(root: str) -> None:
    uri = storage.join(root, "deep/er/key")
    storage.put_if_absent(uri, b"first")
    with pytest.raises(AlreadyExists):
        storage.put_if_absent(uri, b"second")
    assert storage.read_bytes(uri) == b"first"


@pytest.mark.parametrize("attempt", range(3))
def test_of_many_writers_one_wins(root: str, attempt: int) -> None:
    uri = storage.join(root, f"key-{attempt}")
    start = threading.Barrier(WRITERS)

    def write(number: int) -> bool:
        start.wait()
        try:
            storage.put_if_absent(uri, str(number).encode() * 10_000)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(write, range(WRITERS)))
    assert sum(won) == 1
    assert storage.read_bytes(uri) == str(won.index(True)).encode() * 10_000


def test_readers_of_a_replaced_file_see_all_of_one_version(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    versions = [bytes([number]) * 200_000 for number in range(8)]
    storage.write_bytes(uri, versions[0])
    stop = threading.Event()

    def watch() -> bool:
        whole = True
        while not stop.is_set():
            whole &= storage.read_bytes(uri) in versions
        return whole

    with ThreadPoolExecutor(1) as pool:
        watcher = pool.submit(watch)
        for version in versions:
            storage.write_bytes(uri, version)
        stop.set()
        assert watcher.result()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_obeys_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        storage.write_bytes(str(tmp_path / "file"), b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_disk_without_nameless_files_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    uri = str(tmp_path / "file")
    storage.put_if_absent(uri, b"1")
    with pytest.raises(AlreadyExists):
        storage.put_if_absent(uri, b"2")
    storage.write_bytes(uri, b"3")
    assert storage.read_bytes(uri) == b"3"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".0123.partial").write_bytes(b"half")
    assert list(storage.list_files(str(tmp_path))) == []


def test_a_folder_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_bytes(b"")
    (tmp_path / "a/loop").symlink_to(tmp_path / "a")
    (tmp_path / "a/link").symlink_to(tmp_path / "a/file")
    (tmp_path / "a/itself").symlink_to(tmp_path / "a/itself")
    (tmp_path / "a/into a file").symlink_to(tmp_path / "a/file/x")
    assert [entry.uri.rpartition("/")[2] for entry in storage.list_files(str(tmp_path))] == ["file", "link"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_closed_file_is_denied(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "file").chmod(0)
    with pytest.raises(AccessDenied):
        storage.read_bytes(str(tmp_path / "file"))


def test_a_disk_fault_before_the_name_is_certainly_not_applied(tmp_path: Path) -> None:
    with pytest.raises(NotApplied):
        storage.write_bytes(str(tmp_path / ("n" * 300)), b"")


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=20).filter(lambda name: name not in (".", "..") and not set(name) & set("/\0")))
def test_any_file_name_survives(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    assert storage.relative(storage.join("s3://bucket/x", name), "s3://bucket/x") == name


# Faults of the transport, from a server that answers what it is told


def test_the_etag_that_a_store_gives_is_the_md5_of_the_content(root: str) -> None:
    storage.write_bytes(uri := f"{root}/a.mp4", b"content")
    assert not storage.encrypted_by_key(uri)
    assert storage.info(uri).fingerprint == f"{hashlib.md5(b'content').hexdigest()}-7" or root.startswith("/")


def test_an_object_that_was_replaced_is_not_read_as_one(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "READ_AHEAD", 1000)
    storage.write_bytes(uri := storage.join(root, "key"), b"a" * 10**6)
    with storage.open_read(uri) as file:
        assert file.read(1) == b"a"
        storage.write_bytes(uri, b"b" * 10**6)
        try:
            assert file.read() == b"a" * (10**6 - 1)  # on disk the old file is there as long as it is open
        except StorageError:
            assert root.startswith("s3://")
