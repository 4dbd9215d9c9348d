import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avs_core import storage
from avs_core.clip import MISSING_FINGERPRINT
from avs_core.errors import AccessDenied, InputError, NotFound
from avs_core.pipelines.inputs import find_videos
from tests.chaos import faulty_s3
from tests.chaos.faulty_s3 import Exchange, Way
from tests.s3_server import S3Server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for name in ("a.mp4", "b.MKV", "deep/er/c.webm", "notes.txt", "deep/.keep"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def names(folder: Path, inputs: list[str]) -> list[str]:
    return [str(Path(video.uri).relative_to(folder)) for video in find_videos(inputs)]


def test_a_directory_is_searched_to_the_bottom_for_videos(folder: Path) -> None:
    assert names(folder, [str(folder)]) == ["a.mp4", "b.MKV", "deep/er/c.webm"]


def test_a_file_a_glob_and_a_file_uri(folder: Path) -> None:
    assert names(folder, [str(folder / "a.mp4")]) == ["a.mp4"]
    assert names(folder, [f"{folder}/*.m*"]) == ["a.mp4"]
    assert names(folder, [f"file://{folder}/a.mp4"]) == ["a.mp4"]


def test_a_file_whose_name_is_not_utf_8_stops_no_other(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd = os.fsencode(folder) + b"/deep/caf\xe9.mp4"
    Path(os.fsdecode(odd)).write_bytes(b"odd")
    for inputs in ([str(folder)], [f"{folder}/**"]):
        caplog.clear()
        assert {"a.mp4", "deep/er/c.webm"} <= set(names(folder, inputs))
        (warning,) = caplog.messages
        assert "1 of" in warning
        assert "caf\\udce9.mp4" in warning
        assert "rename" in warning
    with pytest.raises(InputError, match="valid UTF-8"):
        find_videos([os.fsdecode(odd)])


def test_a_key_that_holds_a_signature_is_skipped_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ("a.mp4", "b?X-Amz-Signature=hunter2.mp4", "c&Signature=hunter2.mp4", "./d.mp4")

    def listed(uri: str, recursive: bool = True) -> Iterator[storage.ObjectInfo]:
        return (storage.ObjectInfo(f"s3://b/clips/{key}", 1, "etag-1", 0) for key in keys)

    def nothing(uri: str) -> storage.ObjectInfo:
        raise NotFound("no such object")

    monkeypatch.setattr(storage, "info", nothing)
    monkeypatch.setattr(storage, "is_directory", lambda uri: True)
    monkeypatch.setattr(storage, "list_files", listed)
    found = [video.uri for video in find_videos(["s3://b/clips"])]
    assert found == ["s3://b/clips/./d.mp4", "s3://b/clips/a.mp4"]
    assert "2 of 4" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_video_named_twice_is_one_video(folder: Path) -> None:
    assert names(folder, [str(folder), str(folder / "a.mp4"), f"{folder}/./a.mp4"]) == [
        "a.mp4",
        "b.MKV",
        "deep/er/c.webm",
    ]


def test_manifests_are_relative_to_their_folder(folder: Path) -> None:
    (folder / "list.txt").write_text(f"# videos\na.mp4\n\n{folder}/deep/er/c.webm\n")
    (folder / "list.csv").write_text("id,path\n1,a.mp4\n2,b.MKV\n")
    pq.write_table(pa.table({"video_uri": ["b.MKV", None]}), folder / "list.parquet")
    assert names(folder, [str(folder / "list.txt")]) == ["a.mp4", "deep/er/c.webm"]
    assert names(folder, [str(folder / "list.csv")]) == ["a.mp4", "b.MKV"]
    assert names(folder, [str(folder / "list.parquet")]) == ["b.MKV"]


def test_a_manifest_with_a_damaged_page_is_wrong_usage(tmp_path: Path) -> None:
    """pyarrow says OSError of it."""
    uris = [f"/videos/{number:06d}.mp4" for number in range(2_000)]
    pq.write_table(pa.table({"uri": uris}), path := tmp_path / "list.parquet", compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(InputError, match="must be a Parquet file"):
        find_videos([str(path)])


def test_a_state_that_is_not_of_a_plan_means_nothing(folder: Path) -> None:
    pq.write_table(pa.table({"uri": ["a.mp4", "b.MKV"], "state": ["deleted", "done"]}), folder / "list.parquet")
    assert names(folder, [str(folder / "list.parquet")]) == ["a.mp4", "b.MKV"]


def test_a_missing_entry_of_a_manifest_is_kept_for_the_dead_letters(folder: Path) -> None:
    (folder / "list.txt").write_text("a.mp4\ngone.mp4\n")
    gone = find_videos([str(folder / "list.txt")])[1]
    assert (Path(gone.uri).name, gone.fingerprint) == ("gone.mp4", MISSING_FINGERPRINT)


def test_a_changed_file_keeps_its_id_and_gets_another_key(folder: Path) -> None:
    (before,) = find_videos([str(folder / "a.mp4")])
    (folder / "a.mp4").write_bytes(b"longer than it was")
    (after,) = find_videos([str(folder / "a.mp4")])
    assert after.video_id == before.video_id
    assert after.video_key != before.video_key


@pytest.mark.parametrize("inputs", [[], ["{}/nothing.mp4"], ["{}/*.nope"], ["{}/deep/er/empty"]])
def test_an_input_that_names_nothing_is_said_so(folder: Path, inputs: list[str]) -> None:
    (folder / "deep/er/empty").mkdir()
    with pytest.raises(InputError, match=r"names none|must exist|no input"):
        find_videos([text.format(folder) for text in inputs])


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        (pa.table({"uri": [["a.mp4"]]}), "must be text"),
        (pa.Table.from_arrays([pa.array(["a.mp4"])] * 2, names=["uri", "uri"]), "must have one column uri"),
    ],
    ids=["a list", "twice"],
)
def test_a_parquet_manifest_has_one_column_of_text(folder: Path, table: pa.Table, rule: str) -> None:
    pq.write_table(table, folder / "list.parquet")
    with pytest.raises(InputError, match=rule):
        find_videos([str(folder / "list.parquet")])


def test_an_entry_that_can_not_be_is_refused_with_the_name_of_its_manifest(folder: Path) -> None:
    (folder / "list.txt").write_text("http://host/a.mp4\n")
    with pytest.raises(InputError, match=r"an entry of .*list\.txt can't be: .*got http://host/a\.mp4"):
        find_videos([str(folder / "list.txt")])


def test_a_manifest_without_a_known_column_names_those_it_has(folder: Path) -> None:
    (folder / "list.csv").write_text("id,filename\n1,a.mp4\n")
    with pytest.raises(InputError, match="id, filename"):
        find_videos([str(folder / "list.csv")])


def test_other_schemes_are_refused() -> None:
    with pytest.raises(InputError, match="s3"):
        find_videos(["http://example.org/a.mp4"])


# A role that may read what lies below a prefix, as infra/iam/writer.json, and not the prefix's own name


def denied_look(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    """The store refuses to say whether there is a file of this name."""
    look = storage.info

    def info(asked: str) -> storage.ObjectInfo:
        if asked == uri:
            raise AccessDenied(f"could not look at {asked}: the store answered 403")
        return look(asked)

    monkeypatch.setattr(storage, "info", info)


def test_a_directory_whose_own_name_is_denied_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denied_look(monkeypatch, str(folder))
    assert names(folder, [str(folder)]) == ["a.mp4", "b.MKV", "deep/er/c.webm"]
    denied_look(monkeypatch, f"{folder}/*.mp4")
    assert names(folder, [f"{folder}/*.mp4"]) == ["a.mp4"]


def test_what_is_denied_and_no_directory_either_stays_denied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denied_look(monkeypatch, str(folder / "a.mp4"))
    with pytest.raises(AccessDenied, match=r"a\.mp4"):
        find_videos([str(folder / "a.mp4")])


@pytest.mark.integration
def test_a_role_with_the_least_privilege_finds_the_videos_of_its_prefix(
    s3: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("videos/a.mp4", b"a")
    s3.put("videos/deep/b.webm", b"b")

    def outside_the_grant(exchange: Exchange) -> Way | None:
        looked_at = exchange.path.removeprefix(f"/{s3.bucket}/")
        denied = exchange.verb == "HEAD" and not looked_at.startswith("videos/")
        return faulty_s3.refused(403, "AccessDenied") if denied else None

    with faulty_s3.in_front_of(s3, outside_the_grant) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.server.endpoint)
        found = find_videos([f"{s3_bucket}/videos"])
        assert [video.uri for video in found] == [f"{s3_bucket}/videos/{name}" for name in ("a.mp4", "deep/b.webm")]
        assert front.injected == 1
        with pytest.raises(AccessDenied, match="nothing"):
            find_videos([f"{s3_bucket}/nothing"])
