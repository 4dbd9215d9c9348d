"""Clips of tiny copies, against what was written; and every kind of damage."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avs_core.datasets.avsbench.clips import AvsBench
from avs_core.datasets.labelled import ClipRef, LabelledSet
from avs_core.datasets.opening import open_dataset
from avs_core.errors import ConfigError, DataError, TrainingError
from tests import avsbench_fixtures as tiny

ONE = {"train": 1, "test": 1}


def only(data: AvsBench, split: str) -> ClipRef:
    (ref,) = data.clips(split)
    return ref


def test_s4(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_s4(tmp_path)))
    assert isinstance(data, LabelledSet)
    assert (data.setting, data.categories) == ("s4", tiny.CATEGORIES)
    assert data.splits() == ("train", "val", "test")
    assert [ref.clip_id for ref in data.clips("train")] == ["s4train0000", "s4train0001", "s4train0002"]
    ref = data.clips("train")[1]
    clip = data.load(ref, tiny.SIZE)
    assert clip.ref == ref
    assert clip.labelled.tolist() == [True, False, False, False, False]
    assert np.array_equal(clip.masks[0], tiny.square(0))
    assert not clip.masks[1:].any()
    assert clip.labels is None
    assert clip.frames[2][tiny.square(2)].tolist() == [[40, 230, 40]] * int(tiny.square(2).sum())
    assert clip.waveform is not None
    assert clip.waveform.shape == (80_000,)
    tested = data.load(data.clips("test")[0], tiny.SIZE)
    assert np.array_equal(tested.masks, np.stack([tiny.square(second) for second in range(5)]))


def test_ms3(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_ms3(tmp_path)))
    clip = data.load(data.clips("train")[0], tiny.SIZE)
    assert clip.labelled.all()
    assert clip.masks.any((1, 2)).tolist() == [True, False, True, False, True]
    assert np.array_equal(clip.masks[4], tiny.square(4))
    assert (data.setting, clip.ref.categories, clip.ref.sources) == ("ms3", (), None)


def test_the_leak_free_clips_are_a_split_of_their_own(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_ms3(tmp_path)))
    assert data.splits() == ("train", "val", "test", "test-leak-free")
    leaking, kept = data.clips("test")
    assert leaking.source_id == data.clips("train")[0].source_id
    assert data.clips("test-leak-free") == (kept,)
    assert kept.split == "test"


def test_without_leaks_the_split_is_not_listed_and_is_the_same(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_s4(tmp_path)))
    assert data.clips("test-leak-free") == data.clips("test")


def test_avss(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_avss(tmp_path)))
    assert (data.setting, data.categories) == ("avss", tiny.CLASSES)
    single, multi, long = (data.load(ref, tiny.SIZE) for ref in data.clips("train"))
    assert single.labelled.tolist() == [True, False, False, False, False]
    assert multi.labelled.tolist() == [True] * 5
    assert long.labelled.tolist() == [True] * 10
    assert (len(long.frames), len(long.sound)) == (10, 10)
    assert long.labels is not None
    assert np.array_equal(long.labels[7], np.where(tiny.square(2), 3, 0))
    assert np.array_equal(long.masks, long.labels > 0)
    assert long.ref.categories == ("man",)


@pytest.mark.parametrize("write", [tiny.write_s4, tiny.write_ms3, tiny.write_avss])
def test_avsbench_tells_of_no_objects_which_is_not_that_there_are_none(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    data = open_dataset(str(write(tmp_path, ONE)))
    assert data.load(only(data, "train"), 16).instances is None


def test_the_composite_benchmark_is_one_set(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_benchmark(tmp_path)))
    assert (data.name, data.setting, data.version) == ("composite benchmark", "ms3", "tiny")
    assert [ref.setting for ref in data.clips("test")] == ["s4", "s4", "ms3", "ms3"]
    ref = data.clips("test")[2]
    assert ref.subsets == ("single", "silent-distractor")
    assert (ref.sources, ref.categories) == (1, ("dog_barking",))
    clip = data.load(ref, tiny.SIZE)
    sounding, silent = clip.instances
    assert (sounding.category, silent.category) == ("dog_barking", "playing_violin")
    assert np.array_equal(sounding.visible[3], tiny.square(3))
    assert sounding.sounding.tolist() == [True, False, True, False, True]
    assert not silent.sounding.any()
    assert np.array_equal((sounding.visible & sounding.sounding[:, None, None]), clip.masks)


@pytest.mark.parametrize("kind", ["s4", "ms3"])
def test_one_tree_of_the_benchmark(kind: str, tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_benchmark(tmp_path)), kind)
    assert data.setting == kind
    assert {ref.setting for split in data.splits() for ref in data.clips(split)} == {kind}
    assert not data.findings


def test_any_size_and_shape(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_benchmark(tmp_path, ONE)))
    ref = data.clips("test")[1]
    clip = data.load(ref, 32)
    assert clip.frames.shape == (5, 32, 32, 3)
    assert clip.masks.shape == (5, 32, 32)
    assert np.array_equal(clip.masks[0], tiny.square(0, 32))
    assert clip.instances[0].visible.shape == (5, 32, 32)
    with pytest.raises(ConfigError, match="at least 1 pixel"):
        data.load(ref, 0)


def test_frames_that_are_not_square_are_squeezed_with_their_masks(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_ms3(tmp_path, {"test": 1})))
    ref = only(data, "test")
    place = data.entry(ref).files
    for name in (*place.frames, *place.masks):
        with Image.open(tmp_path / name) as image:
            image.resize((128, 64), Image.Resampling.NEAREST).save(tmp_path / name)
    assert np.array_equal(data.load(ref, 64).masks[0], tiny.square(0))


def test_sets_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_ms3(tmp_path)))
    ref = data.clips("test-leak-free")[0]  # fills what is cached
    sent = pickle.loads(pickle.dumps(data))  # noqa: S301  # our own
    assert sent == data
    assert np.array_equal(sent.load(ref, 16).frames, data.load(ref, 16).frames)


def test_unknown_and_empty_splits(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_s4(tmp_path, {"train": 1})))
    with pytest.raises(ConfigError, match="one of train, val, test, test-leak-free, got 'dev'"):
        data.clips("dev")
    with pytest.raises(TrainingError, match=r"'val' of .* has none \(it has train\)"):
        data.clips("val")
    with pytest.raises(TrainingError, match="'test-leak-free'"):
        data.clips("test-leak-free")


def test_clips_of_another_set_are_refused(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_s4(tmp_path / "a", ONE)))
    other = open_dataset(str(tiny.write_ms3(tmp_path / "b", ONE)))
    with pytest.raises(ConfigError, match="take it from clips"):
        data.load(other.clips("train")[0], 16)


def test_without_wavs_the_log_mels_are_read(tmp_path: Path) -> None:
    data = open_dataset(str(tiny.write_s4(tmp_path, {"test": 1})))
    ref = only(data, "test")
    files = data.entry(ref).files
    assert files.log_mel is not None
    (tmp_path / files.wav).unlink()
    path = tmp_path / files.log_mel
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(torch.ones(5, 1, 96, 64)))
    clip = data.load(ref, 16)
    assert clip.waveform is None
    assert (clip.sound == 1).all()


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shrink(path: Path) -> None:
    with Image.open(path) as image:
        image.resize((32, 32), Image.Resampling.NEAREST).save(path)


def lower(path: Path) -> None:
    with Image.open(path) as image:
        image.point(lambda value: max(value - 1, 0)).save(path)


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "frame missing": ("frames", Path.unlink, "is missing"),
    "frame cut off": ("frames", halve, "can't be decoded"),
    "mask missing": ("masks", Path.unlink, "is missing"),
    "mask cut off": ("masks", halve, "can't be decoded"),
    "mask of another size": ("masks", shrink, "is 32×32, the frame 64×64"),
    "mask with other values": ("masks", lower, "holds"),
    "sound missing": ("sound", Path.unlink, "there is no"),
    "sound cut off": ("sound", halve, "bytes that its header tells"),
    "objects missing": ("objects", Path.unlink, "is missing"),
    "objects cut off": ("objects", halve, "as `avs benchmark build` writes them"),
}


@pytest.mark.parametrize("kind", ["s4", "ms3", "avss", "benchmark"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named(damage: str, kind: str, tmp_path: Path) -> None:
    part, harm, message = DAMAGE[damage]
    if part == "objects" and kind != "benchmark":
        return
    write = {"s4": tiny.write_s4, "ms3": tiny.write_ms3, "avss": tiny.write_avss, "benchmark": tiny.write_benchmark}
    data = open_dataset(str(write[kind](tmp_path, {"test": 1})))
    ref = data.clips("test")[0]
    entry = data.entry(ref)
    paths = {"frames": entry.files.frames[-1], "masks": entry.files.masks[-1], "sound": entry.files.wav}
    path = paths | {"objects": str(entry.instances)}
    harm(tmp_path / path[part])
    with pytest.raises(DataError, match=message) as told:
        data.load(ref, 32)
    assert path[part] in str(told.value)
