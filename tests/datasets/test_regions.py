"""Objects from masks: each connected region of a class, the largest first; a clip of S4 is one."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avs_core.datasets.labelled import LabelledSet
from avs_core.datasets.opening import open_dataset
from avs_core.datasets.regions import RegionSet, regions
from avs_core.errors import DataError
from tests.avsbench_fixtures import CATEGORIES, CLASSES, square, write_avss, write_ms3, write_s4


def test_regions_of_a_class_are_apart_and_touching_classes_too() -> None:
    labels = np.zeros((2, 6, 8), np.int64)
    labels[0, :2, :2], labels[0, 4:, 4:], labels[0, :2, 2:4] = 1, 1, 2
    labels[1, 3, 3] = labels[1, 4, 4] = 2
    found = regions(labels, ("dog", "cello"), 8)
    assert [(one.object_id, one.category) for one in found] == [(1, "dog"), (2, "cello"), (3, "dog")]
    assert [one.visible.sum((1, 2)).tolist() for one in found] == [[8, 0], [4, 2], [4, 0]]
    assert [one.sounding.tolist() for one in found] == [[True, False], [True, True], [True, False]]
    union = np.stack([one.visible for one in found]).any(0)
    assert np.array_equal(union, labels > 0)
    assert [one.category for one in regions(labels, ("dog", "cello"), 1)] == ["dog"]
    assert regions(np.zeros((1, 4, 4), np.int64), ("dog",), 8) == ()


def test_what_the_settings_tell(tmp_path: Path) -> None:
    s4 = RegionSet(open_dataset(str(write_s4(tmp_path / "s4")), "s4"), 8)
    ms3 = RegionSet(open_dataset(str(write_ms3(tmp_path / "ms3")), "ms3"), 8)
    avss = RegionSet(open_dataset(str(write_avss(tmp_path / "avss")), "avss"), 8)
    assert [one.setting for one in (s4, ms3, avss)] == ["s4", "ms3", "ms3"]
    assert [one.categories for one in (s4, ms3, avss)] == [CATEGORIES, ("something",), CLASSES[1:]]
    for data in (s4, ms3, avss):
        assert isinstance(data, LabelledSet)
        assert pickle.loads(pickle.dumps(data)).clips("train") == data.clips("train")  # noqa: S301  # our own bytes
        for ref in data.clips("train"):
            clip = data.load(ref, 64)
            (one,) = clip.instances
            assert one.category in data.categories
            assert clip.labels is None
            assert np.array_equal(one.visible, clip.masks)
            assert np.array_equal(one.visible[0], square(0))
            assert not one.sounding[~clip.labelled].any()


def test_a_clip_of_s4_has_one_category(tmp_path: Path) -> None:
    data = open_dataset(str(write_s4(tmp_path)), "s4")

    class Unnamed(type(data)):  # type: ignore[misc]  # the class of what was opened
        def load(self, ref, *rest):  # type: ignore[no-untyped-def]  # as its base
            clip = super().load(ref, *rest)
            return replace(clip, ref=replace(clip.ref, categories=()))

    broken = RegionSet(Unnamed(**vars(data)), 8)
    with pytest.raises(DataError, match="has one category"):
        broken.load(broken.clips("train")[0], 64)
