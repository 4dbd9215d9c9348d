"""The manifest's promises: round trip, no source in two splits, distractors whose class sounds elsewhere."""

from dataclasses import replace

import pytest

from avs_core.datasets.benchmark.manifest import (
    ManifestRow,
    from_parquet,
    leaks,
    source_id,
    to_parquet,
    with_distractors,
)
from avs_core.datasets.sources import Sources
from avs_core.errors import DataError

ROW = ManifestRow(
    clip_id="ms3_train_00001",
    setting="ms3",
    split="train",
    kind="distractor",
    seed=7,
    seconds=5,
    source_id=source_id(["p:/dog.png", "p:/dog.wav", "p:/field.jpg"]),
    categories=("dog",),
    sources=1,
    subsets=("single",),
    image_refs=("p:/dog.png", "p:/cow.png"),
    sound_refs=("p:/dog.wav",),
    background_ref="p:/field.jpg",
    silent=("cow",),
    larger=("cow",),
    video="videos/ms3/train/ms3_train_00001.mp4",
)


def test_round_trip() -> None:
    rows = [ROW, replace(ROW, clip_id="s4_train_00001", setting="s4", categories=(), seed=10**12)]
    assert from_parquet(to_parquet(rows, "abc")) == (rows, "abc")
    assert to_parquet(rows, "abc") == to_parquet(rows, "abc")


def test_what_is_no_manifest_is_refused() -> None:
    with pytest.raises(DataError, match="avs benchmark build"):
        from_parquet(b"PAR1 but not really")


@pytest.mark.parametrize(
    "crossing",
    [
        {"image_refs": ("p:/dog2.png",)},  # another picture of the same series
        {"sound_refs": ("p:/dog.wav",)},
        {"background_ref": "p:/field.jpg"},
    ],
)
def test_a_source_in_two_splits_is_refused(crossing: dict[str, object]) -> None:
    clean = replace(
        ROW, split="test", image_refs=("p:/fox.png",), sound_refs=("p:/fox.wav",), background_ref="p:/moor.jpg"
    )
    assert leaks([ROW, clean]) == []
    with pytest.raises(DataError, match="test, train"):
        to_parquet([ROW, replace(clean, **crossing)], "v")


def test_only_the_unseen_classes_share_places_and_only_with_test() -> None:
    other = {"image_refs": (), "sound_refs": ()}
    test, unseen = replace(ROW, split="test"), replace(ROW, split="unseen", **other)
    assert leaks([test, unseen]) == []
    assert leaks([ROW, unseen]) != []


def test_no_clip_of_the_catalogue_can_leak() -> None:
    """One row a split with everything that any of its clips could be made of."""
    sources, rows = Sources(), []
    for split in ("train", "val", "test", "unseen"):
        images = [ref for name in sources.categories for ref in sources.images(split, name)]
        sounds = [ref for name in sources.categories for ref in sources.sounds(split, name)]
        for place in sources.backgrounds(split):
            rows.append(
                replace(ROW, split=split, image_refs=tuple(images), sound_refs=tuple(sounds), background_ref=place.ref)
            )
    assert len(rows) > 50
    assert leaks(rows) == []


def test_a_distractor_sounds_in_another_clip_of_the_split() -> None:
    cow = replace(ROW, clip_id="b", categories=("cow",), larger=(), silent=())
    assert "silent-distractor" in with_distractors([ROW, cow])[0].subsets
    assert "silent-distractor" not in with_distractors([ROW, cow])[1].subsets
    assert "silent-distractor" not in with_distractors([ROW, replace(cow, split="test")])[0].subsets
    assert "silent-distractor" not in with_distractors([replace(ROW, categories=("dog", "cow"))])[0].subsets


def test_the_same_sources_give_the_same_id() -> None:
    assert source_id(["a", "b"]) == source_id(["b", "a", "b"]) != source_id(["a"])
