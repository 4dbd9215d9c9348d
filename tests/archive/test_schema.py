import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from avs_core.archive.schema import (
    FRAME_SCHEMA,
    ROW_GROUP,
    ROW_SCHEMA,
    FrameRow,
    RunRecord,
    canonical_json,
    frame_table,
    instance_table,
    run_key,
    to_parquet,
)
from tests.archive import sample

UNIT = sample.units(sample.video())[0]


def read(content: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(content))


def test_a_row_has_the_columns_that_are_promised() -> None:
    assert {field.name: field.type for field in ROW_SCHEMA} == {
        "video_id": pa.string(),
        "video_uri": pa.dictionary(pa.int32(), pa.string()),
        "frame_index": pa.int32(),
        "frame_time_us": pa.int64(),
        "object_id": pa.int32(),
        "category": pa.string(),
        "category_score": pa.float32(),
        "audio_score": pa.float32(),
        "sounding": pa.bool_(),
        "score": pa.float32(),
        "height": pa.int32(),
        "width": pa.int32(),
        "counts": pa.binary(),
        "area": pa.int32(),
        **dict.fromkeys(("x0", "y0", "w", "h"), pa.int32()),
    }


def test_a_run_key_is_the_same_tomorrow() -> None:
    assert run_key(sample.RECORD) == "rdcc31c97f04d0e7d"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"weights_sha256": "cd" * 32},
        {"preprocessing": {"size": 256, "rate": 1}},
        {"thresholds": {"mask": 0.4}},
        {"categories": ("violin", "dog")},
        {"numerics": {"device": "cuda"}},
        {"schema_version": 4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_decides_the_masks_changes_the_run_key(change: dict[str, object]) -> None:
    assert run_key(sample.RECORD.model_copy(update=change)) != run_key(sample.RECORD)


def test_the_order_of_settings_does_not_change_the_run_key() -> None:
    turned = sample.RECORD.model_copy(update={"preprocessing": {"rate": 1, "size": 224}})
    assert run_key(turned) == run_key(sample.RECORD)


@pytest.mark.parametrize("wrong", [{"batch_size": 4}, {"weights_sha256": "short"}, {"model": ""}])
def test_a_run_record_holds_nothing_else(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RunRecord(**(sample.RECORD.model_dump() | wrong))


def test_json_has_one_form() -> None:
    assert canonical_json({"b": "é", "a": [1.5]}) == '{\n "a": [\n  1.5\n ],\n "b": "é"\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_rows_are_sorted_by_object_and_frames_by_second() -> None:
    instances, frames = sample.tables(UNIT)
    assert instances.schema == ROW_SCHEMA
    assert frames.schema == FRAME_SCHEMA
    keys = list(zip(instances["object_id"].to_pylist(), instances["frame_time_us"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert frames["second"].to_pylist() == [0, 1, 2, 3, 4]
    assert frames["n_instances"].to_pylist() == [0, 2, 2, 0, 2]
    assert (instance_table(UNIT.video, reversed(sample.frames(UNIT)))).equals(instances)


def test_an_instance_without_a_pixel_is_no_row() -> None:
    nothing = sample.instance(sample.picture(0) & False)
    frame = FrameRow(0, 0, 23, 920_000, sample.HEIGHT, sample.WIDTH, True, ("damaged", "no_audio"), (nothing,))
    assert instance_table(UNIT.video, [frame]).num_rows == 0
    (row,) = frame_table(UNIT.video, [frame]).to_pylist()
    assert (row["n_instances"], row["flags"]) == (0, "damaged,no_audio")


def test_no_rows_still_have_the_schema() -> None:
    assert read(to_parquet(instance_table(UNIT.video, []), {})).schema_arrow == ROW_SCHEMA


def test_parquet_is_zstd_with_dictionaries_for_what_repeats() -> None:
    file = read(to_parquet(sample.tables(UNIT)[0], {"avs.run_key": "r1"}))
    assert file.metadata.metadata[b"avs.run_key"] == b"r1"
    columns = {
        (column := file.metadata.row_group(0).column(index)).path_in_schema: column for index in range(len(ROW_SCHEMA))
    }
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    coded = {name for name, column in columns.items() if "RLE_DICTIONARY" in column.encodings}
    assert coded == {"video_id", "video_uri", "category", "object_id", "height", "width"}


def test_row_groups_are_bounded() -> None:
    table = pa.concat_tables([sample.tables(UNIT)[0]] * (ROW_GROUP // 6 + 10))
    file = read(to_parquet(table, {}))
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [
        ROW_GROUP,
        table.num_rows - ROW_GROUP,
    ]


PRINT_DIGEST = """
import hashlib
from avs_core.archive.schema import to_parquet
from tests.archive import sample
print(hashlib.sha256(to_parquet(sample.tables(sample.units(sample.video())[0])[0], {"b": "1", "a": "2"})).hexdigest())
"""


def test_another_process_makes_the_same_bytes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINT_DIGEST],
        env=os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(Path.cwd())},
        check=True,
        capture_output=True,
        text=True,
    )
    here = to_parquet(sample.tables(UNIT)[0], {"b": "1", "a": "2"})
    assert done.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_how_a_table_was_chunked_does_not_change_the_bytes() -> None:
    table = sample.tables(UNIT)[0]
    pieces = pa.concat_tables([table.slice(index, 1) for index in range(table.num_rows)])
    assert to_parquet(pieces, {}) == to_parquet(table, {})


def test_reading_an_archive_needs_no_torch_and_no_ray() -> None:
    look = "import sys, avs_core.archive.verify; print([name for name in ('torch', 'ray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
