"""S3 inventories in all three formats, against a listing of the same bucket on a real S3 server."""

import csv
import gzip
import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from avs_core import storage
from avs_core.clip import VideoRef
from avs_core.errors import InputError
from avs_core.pipelines import inventory
from avs_core.pipelines.inputs import find_videos

CSV_COLUMNS = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
NAMES = ("films/a.mp4", "films/mit Lücke + plus.mkv", "films/page.html", "films/sub/b.MP4")

Rows = list[dict[str, object]]


def listed(bucket: str) -> Rows:
    """What AWS would list of the bucket: its objects, an older version of one, the mark of a deleted one."""
    rows: Rows = []
    for found in storage.list_files(f"{bucket}/films"):
        etag, _, size = found.fingerprint.rpartition("-")
        modified = datetime.fromtimestamp(found.modified_us / 1e6, UTC)
        key = found.uri.removeprefix(f"{bucket}/")
        rows.append(
            {"bucket": bucket.removeprefix("s3://"), "key": key, "version_id": "v1", "is_latest": True}
            | {"is_delete_marker": False, "size": int(size), "last_modified_date": modified, "e_tag": etag}
            | {"storage_class": "STANDARD"}
        )
    rows.append(rows[0] | {"version_id": "v0", "is_latest": False, "e_tag": "old"})
    rows.append(rows[0] | {"key": "films/gone.mp4", "is_delete_marker": True, "size": None, "e_tag": None})
    return rows


def as_csv(rows: Rows) -> bytes:
    text = io.StringIO()
    for row in rows:
        plain = row | {"key": quote_plus(str(row["key"]), safe="/"), "is_latest": str(row["is_latest"]).lower()}
        modified = row["last_modified_date"]
        assert isinstance(modified, datetime)
        plain["last_modified_date"] = modified.isoformat().replace("+00:00", "Z")
        csv.writer(text, quoting=csv.QUOTE_ALL).writerow(plain.values())
    return gzip.compress(text.getvalue().encode())


def as_parquet(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def as_orc(rows: Rows) -> bytes:
    sink = io.BytesIO()
    orc.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def put_inventory(bucket: str, form: str, content: bytes, columns: str = CSV_COLUMNS) -> str:
    data = f"inventories/data/one.{form.lower()}"
    storage.write_bytes(f"{bucket}/{data}", content)
    manifest = {
        "sourceBucket": bucket.removeprefix("s3://"),
        "destinationBucket": f"arn:aws:s3:::{bucket.removeprefix('s3://')}",
        "version": "2016-11-30",
        "fileFormat": form,
        "fileSchema": columns,
        "files": [{"key": data, "size": len(content), "MD5checksum": "00"}],
    }
    storage.write_bytes(uri := f"{bucket}/inventories/manifest.json", json.dumps(manifest).encode())
    return uri


@pytest.mark.integration
@pytest.mark.parametrize(("form", "write"), [("CSV", as_csv), ("Parquet", as_parquet), ("ORC", as_orc)])
def test_an_inventory_gives_what_a_listing_gives(form: str, write: Callable[[Rows], bytes], s3_bucket: str) -> None:
    for name in NAMES:
        storage.write_bytes(f"{s3_bucket}/{name}", name.encode())
    expected: list[VideoRef] = find_videos([f"{s3_bucket}/films"])
    assert len(expected) == 3
    assert find_videos([put_inventory(s3_bucket, form, write(listed(s3_bucket)))]) == expected


@pytest.mark.integration
@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (gzip.compress(b'"b","films/a.mp4"\n'), "Bucket, Key"),
        (gzip.compress(b'"b","films/a.mp4"\n'), CSV_COLUMNS),
        (as_csv([])[:-4] + b"xxxx", CSV_COLUMNS),
        (b"no gzip", CSV_COLUMNS),
        (gzip.compress(b"x" * 10_000)[:-9], CSV_COLUMNS),
    ],
    ids=["columns missing", "row too short", "flipped bytes", "no gzip", "cut off"],
)
def test_a_damaged_inventory_is_refused(content: bytes, columns: str, s3_bucket: str) -> None:
    uri = put_inventory(s3_bucket, "CSV", content, columns)
    with pytest.raises(InputError, match="inventory must have"):
        find_videos([uri])


@pytest.mark.integration
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"e_tag": None}, "etag must be text, got None"),
        ({"e_tag": 5}, "etag must be text, got 5"),
        ({"bucket": None}, "bucket must be text"),
        ({"last_modified_date": None}, "must be a time"),
        ({"last_modified_date": 1_234_567}, "must be a time"),
        ({"size": -5}, "a size must be 0 to"),
        ({"key": None}, "inventory must have"),
    ],
    ids=str,
)
def test_a_value_that_no_object_has_is_refused(change: dict[str, object], rule: str, s3_bucket: str) -> None:
    storage.write_bytes(f"{s3_bucket}/films/a.mp4", b"a")
    rows = [listed(s3_bucket)[0] | change]
    with pytest.raises(InputError, match=rule):
        find_videos([put_inventory(s3_bucket, "Parquet", as_parquet(rows))])


@pytest.mark.integration
def test_times_without_a_zone_are_utc_wherever_the_machine_is(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(f"{s3_bucket}/films/a.mp4", b"a")
    expected = find_videos([f"{s3_bucket}/films"])
    row = listed(s3_bucket)[0]
    modified = row["last_modified_date"]
    assert isinstance(modified, datetime)
    uri = put_inventory(s3_bucket, "Parquet", as_parquet([row | {"last_modified_date": modified.replace(tzinfo=None)}]))
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert find_videos([uri]) == expected
    finally:
        monkeypatch.undo()
        time.tzset()


def test_another_manifest_json_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("other") / "manifest.json"
    path.write_text('{"name": "a web app"}')
    with pytest.raises(InputError, match="S3 Inventory"):
        find_videos([str(path)])


@pytest.mark.integration
@pytest.mark.parametrize("form", ["Parquet", "ORC"])
def test_a_file_of_an_inventory_that_is_cut_off_is_refused(form: str, s3_bucket: str) -> None:
    storage.write_bytes(f"{s3_bucket}/films/a.mp4", b"a")
    rows = listed(s3_bucket)
    whole = {"Parquet": as_parquet, "ORC": as_orc}[form](rows)
    with pytest.raises(InputError, match=r"must be whole"):
        find_videos([put_inventory(s3_bucket, form, whole[: len(whole) // 2])])


@pytest.mark.integration
@pytest.mark.parametrize(("limit", "rule"), [("MAX_OBJECTS", "at most 1 objects"), ("MAX_KEY", "at most 1 characters")])
def test_an_inventory_beyond_a_limit_is_refused(
    limit: str, rule: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, limit, 1)
    storage.write_bytes(f"{s3_bucket}/films/a.mp4", b"a")
    rows = listed(s3_bucket)
    with pytest.raises(InputError, match=rule):
        find_videos([put_inventory(s3_bucket, "Parquet", as_parquet(rows))])


def test_an_odd_key_in_an_inventory_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    common = {"size": 1, "last_modified_date": datetime(2026, 1, 1, tzinfo=UTC), "e_tag": "etag"}
    keys = ("a.mp4", "clips/./b.mp4", "c?X-Amz-Signature=hunter2.mp4")
    content = as_parquet([{"bucket": "b", "key": key, **common} for key in keys])
    monkeypatch.setattr(storage, "open_read", lambda uri: io.BufferedReader(io.BytesIO(content)))
    manifest = {
        "destinationBucket": "arn:aws:s3:::b",
        "fileFormat": "Parquet",
        "fileSchema": "",
        "files": [{"key": "k"}],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = find_videos([str(tmp_path / "manifest.json")])
    assert [video.uri for video in found] == ["s3://b/a.mp4", "s3://b/clips/./b.mp4"]
    assert "1 of 3" in caplog.text
    assert "hunter2" not in caplog.text
