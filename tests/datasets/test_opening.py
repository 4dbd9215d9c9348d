"""Which data set lies where; on disk and on S3."""

import json
from pathlib import Path

import numpy as np
import pytest

from avs_core import storage
from avs_core.datasets.avsbench.check import check_dataset
from avs_core.datasets.opening import open_dataset
from avs_core.errors import ConfigError, DataError, InputError
from tests import avsbench_fixtures as tiny

ONE = {"train": 1, "val": 1, "test": 1}


def test_both_trees_of_avsbench_are_one_set(tmp_path: Path) -> None:
    tiny.write_s4(tmp_path, ONE)
    tiny.write_ms3(tmp_path, ONE)
    data = open_dataset(str(tmp_path))
    assert (data.name, data.setting) == ("AVSBench S4 + AVSBench MS3", "ms3")
    assert [ref.setting for ref in data.clips("val")] == ["s4", "ms3"]
    for ref in data.clips("val"):
        assert data.load(ref, 16).ref == ref
    assert open_dataset(str(tmp_path), "s4").setting == "s4"


def test_the_folders_of_the_official_copy(tmp_path: Path) -> None:
    tiny.write_s4(tmp_path / "Single-source", ONE)
    tiny.write_ms3(tmp_path / "Multi-sources", ONE)
    data = open_dataset(str(tmp_path))
    for ref in data.clips("train"):
        assert data.load(ref, 16).masks.any()
    assert check_dataset(data).sound


def test_one_id_in_both_trees_stays_two_clips(tmp_path: Path) -> None:
    for name, data in {**tiny.s4_files({"test": 1}), **tiny.ms3_files({"test": 1})}.items():
        clip = "mwcl4wtlNy8"
        renamed = name.replace("s4test-0000", clip).replace("m3test-0000_0", clip).replace("m3train0000_1", clip)
        content = data
        if name.endswith(".csv"):
            content = data.replace(b"s4test-0000", clip.encode()).replace(b"m3train0000_1", clip.encode())
        tiny.write(tmp_path, {renamed: content})
    data = open_dataset(str(tmp_path))
    assert [ref.clip_id for ref in data.clips("test")] == ["mwcl4wtlNy8", "ms3-mwcl4wtlNy8"]
    single, multi = (data.load(ref, 32) for ref in data.clips("test"))
    assert single.masks[1].any()
    assert not multi.masks[1].any()


def test_a_folder_without_metadata(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no s4_meta_data\.csv or Single-source/"):
        open_dataset(str(tmp_path))
    with pytest.raises(InputError, match="is none: check the path"):
        open_dataset(str(tmp_path / "nowhere"))
    tiny.write_s4(tmp_path, {"train": 1})
    with pytest.raises(InputError, match=r"has no ms3_meta_data\.csv"):
        open_dataset(str(tmp_path), "ms3")


def test_avss_beside_others_must_be_chosen(tmp_path: Path) -> None:
    tiny.write_s4(tmp_path, {"train": 1})
    tiny.write_avss(tmp_path, {"train": 1})
    with pytest.raises(ConfigError, match="choose the kind"):
        open_dataset(str(tmp_path))
    assert open_dataset(str(tmp_path), "avss").setting == "avss"


def test_avss_needs_its_classes(tmp_path: Path) -> None:
    (tiny.write_avss(tmp_path, {"train": 1}) / "label2idx.json").unlink()
    with pytest.raises(DataError, match=r"label2idx\.json, which names the colours"):
        open_dataset(str(tmp_path))


def test_a_benchmark_that_is_not_finished(tmp_path: Path) -> None:
    files = tiny.benchmark_files({"train": 1})
    for name in ("manifest.parquet", "s4_meta_data.csv", "ms3_meta_data.csv"):
        del files[name]
    tiny.write(tmp_path, files)
    with pytest.raises(DataError, match=r"has no manifest.parquet: run the same `avs benchmark build` again"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.parquet", b"PAR1", "manifest"),
        ("categories.json", b"{", "JSON"),
        ("categories.json", b'{"a": 1}', "a list of names"),
    ],
)
def test_a_benchmark_with_broken_metadata(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tiny.write_benchmark(tmp_path, {"train": 1}) / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_dataset(str(tmp_path))


def test_tables_that_contradict_the_manifest(tmp_path: Path) -> None:
    tiny.write_benchmark(tmp_path, {"train": 2, "test": 1})
    table = tmp_path / "ms3_meta_data.csv"
    table.write_text("video_id,split\nms3_train_00000,train\nms3_test_00000,train\nstranger,test\n")
    data = open_dataset(str(tmp_path))
    assert [ref.clip_id for ref in data.clips("train") if ref.setting == "ms3"] == ["ms3_train_00000"]
    told = " ".join(finding.message for finding in data.findings if finding.kind == "contradicting")
    assert "has ms3_test_00000 in test, the table in train" in told
    assert "doesn't have the clip stranger" in told
    assert "no table lists its clip ms3_train_00001" in told


def test_the_version_follows_the_metadata(tmp_path: Path) -> None:
    first = open_dataset(str(tiny.write_avss(tmp_path, ONE))).version
    assert open_dataset(str(tmp_path)).version == first
    labels = json.loads((tmp_path / "label2idx.json").read_text())
    labels["thing-4"], labels["thing-5"] = labels["thing-5"], labels["thing-4"]
    (tmp_path / "label2idx.json").write_text(json.dumps(labels))
    assert open_dataset(str(tmp_path)).version != first


@pytest.mark.integration
@pytest.mark.ci_slice
def test_every_layout_on_s3(s3_bucket: str, tmp_path: Path) -> None:
    """The same clips as on disk; checked there too, with a file missing."""
    copies = {
        "s4": tiny.s4_files(ONE),
        "ms3": tiny.ms3_files(ONE),
        "avss": tiny.avss_files(ONE),
        "benchmark": tiny.benchmark_files(ONE),
    }
    for name, files in copies.items():
        root = f"{s3_bucket}/some/{name}"
        for path, content in files.items():
            storage.write_bytes(storage.join(root, path), content)
        local, remote = open_dataset(str(tiny.write(tmp_path / name, files))), open_dataset(root)
        assert remote.version == local.version
        ref = local.clips("train")[0]
        here, there = local.load(ref, 32), remote.load(ref, 32)
        assert np.array_equal(here.frames, there.frames)
        assert np.array_equal(here.masks, there.masks)
        assert np.array_equal(here.sound, there.sound)
        assert check_dataset(remote, deep=True).sound
        storage.delete(storage.join(root, remote.entry(ref).files.masks[0]))
        assert [finding.kind for finding in check_dataset(root).damage] == ["missing"]
