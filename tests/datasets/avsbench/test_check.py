"""Copies against their metadata: sound ones, and each kind of damage."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avs_core import storage
from avs_core.datasets.avsbench.check import check_dataset, open_whole, require_sound
from avs_core.datasets.opening import open_dataset
from avs_core.errors import ConfigError, DataError
from tests import avsbench_fixtures as tiny

WRITE = {"s4": tiny.write_s4, "ms3": tiny.write_ms3, "avss": tiny.write_avss, "benchmark": tiny.write_benchmark}


@pytest.mark.parametrize("kind", WRITE)
@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_copy_is_sound(kind: str, deep: bool, tmp_path: Path) -> None:
    report = check_dataset(str(WRITE[kind](tmp_path)), deep=deep)
    assert report.sound
    require_sound(report)
    trees = 2 if kind == "benchmark" else 1
    counts = {one.split: (one.clips, one.complete) for one in report.splits if one.split != "test-leak-free"}
    assert counts == {split: (trees * clips, trees * clips) for split, clips in tiny.SPLITS.items()}


def test_counts(tmp_path: Path) -> None:
    train, val, test = check_dataset(str(tiny.write_s4(tmp_path))).splits
    assert (train.seconds, train.labelled, train.log_mels) == (15, 3, 0)
    assert (val.seconds, val.labelled) == (10, 10)
    assert test.split == "test"


def test_leaks_are_told_and_counted(tmp_path: Path) -> None:
    report = check_dataset(str(tiny.write_ms3(tmp_path)))
    assert [finding.kind for finding in report.findings] == ["dirt"]
    assert {one.split: one.clips for one in report.splits}["test-leak-free"] == 1


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_s4(tmp_path)))
    first, second = (data.entry(ref).files for ref in data.clips("test"))
    (tmp_path / first.frames[2]).unlink()
    (tmp_path / first.masks[4]).write_bytes(b"")
    (tmp_path / second.wav).unlink()
    report = check_dataset(data)
    assert {(finding.kind, finding.path) for finding in report.damage} == {
        ("missing", first.frames[2]),
        ("broken", first.masks[4]),
        ("missing", second.wav),
    }
    assert {one.split: (one.clips, one.complete) for one in report.splits}["test"] == (2, 0)
    with pytest.raises(DataError, match=r"2 missing, 1 broken.*avs data check") as told:
        require_sound(report)
    assert first.frames[2] in str(told.value)


def test_one_split_alone(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_ms3(tmp_path)))
    (tmp_path / data.entry(data.clips("val")[0]).files.wav).unlink()
    assert check_dataset(data, "train").sound
    assert not check_dataset(data, "val").sound
    assert [one.split for one in check_dataset(data, "test-leak-free").splits] == ["test-leak-free"]
    with pytest.raises(ConfigError, match="one of all, train"):
        check_dataset(data, "dev")


def test_log_mels_stand_in_for_wavs(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_s4(tmp_path, {"train": 2})))
    files = data.entry(data.clips("train")[0]).files
    (tmp_path / files.wav).unlink()
    tiny.write(tmp_path, {str(files.log_mel): pickle.dumps(torch.ones(5, 1, 96, 64))})
    report = check_dataset(data, deep=True)
    assert report.sound
    assert report.splits[0].log_mels == 1
    tiny.write(tmp_path, {str(files.log_mel): pickle.dumps(print)})
    assert check_dataset(data).sound  # not looked into
    (finding,) = check_dataset(data, deep=True).damage
    assert (finding.kind, finding.path) == ("broken", files.log_mel)
    assert "builtins.print" in finding.message


def test_files_that_nobody_needs_are_told(tmp_path: Path) -> None:
    tiny.write_s4(tmp_path, {"train": 1})
    more = {f"s4_data/gt_masks/train/dog_barking/s4train0000/s4train0000_{n}.png": b"x" for n in (2, 3, 4, 5)}
    tiny.write(tmp_path, {**more, "s4_data/audio_wav/.DS_Store": b"x", "s4_data/raw_videos/a.mp4": b"not listed"})
    report = check_dataset(str(tmp_path))
    assert report.sound
    assert [(finding.kind, finding.path) for finding in report.findings] == [
        ("dirt", "s4_data/audio_wav"),
        ("dirt", "s4_data/gt_masks"),
    ]
    assert "not read: 4, such as" in report.findings[1].message


@pytest.mark.parametrize("kind", WRITE)
def test_a_deep_check_reads_every_file(kind: str, tmp_path: Path) -> None:
    data = open_dataset(str(WRITE[kind](tmp_path, {"test": 2})))
    first, second = data.clips("test")[:2]
    files = data.entry(first).files
    for path in (files.frames[1], files.masks[1], files.wav):
        whole = (tmp_path / path).read_bytes()
        (tmp_path / path).write_bytes(whole[: len(whole) // 2])
    other = data.entry(second).files
    with Image.open(tmp_path / other.masks[3]) as mask:
        mask.resize((8, 8)).save(tmp_path / other.masks[3])
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(tmp_path / other.masks[4])
    assert check_dataset(data).sound  # a listing doesn't see it
    report = check_dataset(data, deep=True)
    assert sorted((finding.kind, finding.path) for finding in report.damage) == sorted(
        [
            ("broken", files.frames[1]),
            ("broken", files.masks[1]),
            ("broken", files.wav),
            ("contradicting", other.masks[3]),
            ("contradicting", other.masks[4]),
        ]
    )


def test_broken_objects_are_found(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_benchmark(tmp_path, {"test": 1})))
    entry = data.entry(data.clips("test")[0])
    path = tmp_path / str(entry.instances)
    path.write_text(path.read_text().replace('"size": [64, 64]', '"size": [32, 32]'))
    (finding,) = check_dataset(data, deep=True).damage
    assert (finding.kind, finding.path) == ("broken", entry.instances)
    path.unlink()
    assert [finding.kind for finding in check_dataset(data).damage] == ["missing"]


def test_a_short_sound_is_dirt(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_ms3(tmp_path, {"val": 1})))
    path = data.entry(data.clips("val")[0]).files.wav
    tiny.write(tmp_path, {path: tiny.wav(4.5, 300)})
    report = check_dataset(data, deep=True)
    assert report.sound
    assert [(one.path, one.message[:18]) for one in report.findings] == [(path, "lasts 4.50 of 5 s;")]


def test_tables_that_contradict_are_damage(tmp_path: Path) -> None:
    tiny.write_ms3(tmp_path, {"train": 1})
    table = tmp_path / "ms3_meta_data.csv"
    table.write_text(table.read_text() + "m3train0000_0,test\n")
    report = check_dataset(str(tmp_path))
    assert [finding.kind for finding in report.damage] == ["contradicting"]


def test_no_clips_at_all_is_damage(tmp_path: Path) -> None:
    (tmp_path / "ms3_meta_data.csv").write_text("video_id,split\n")
    assert "lists no clips" in check_dataset(str(tmp_path)).damage[0].message


def test_training_opens_whole_copies_only(tmp_path: Path) -> None:
    data = open_whole(str(tiny.write_avss(tmp_path)))
    assert data == open_dataset(str(tmp_path))
    (tmp_path / data.entry(data.clips("test")[0]).files.frames[0]).unlink()
    with pytest.raises(DataError, match="a data set must be whole"):
        open_whole(str(tmp_path))


def test_files_are_listed_not_looked_at_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_dataset(str(tiny.write_s4(tmp_path)))
    monkeypatch.setattr(storage, "info", None)
    monkeypatch.setattr(storage, "read_bytes", None)
    listed: list[str] = []
    real = storage.list_files
    monkeypatch.setattr(storage, "list_files", lambda uri: listed.append(uri) or real(uri))
    assert check_dataset(data).sound
    assert len(listed) == 4
