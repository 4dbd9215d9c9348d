"""Labelled clips as batches: the same for any number of processes, from any step on, and never all at once."""

import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avs_core.audio import Alignment
from avs_core.datasets.benchmark.layout import MANIFEST
from avs_core.datasets.benchmark.manifest import from_parquet, to_parquet
from avs_core.datasets.composed import ComposedSet
from avs_core.datasets.labelled import ClipRef, InstanceTruth, LabelledClip, LabelledSet, Setting
from avs_core.datasets.opening import open_dataset
from avs_core.datasets.regions import RegionSet
from avs_core.datasets.sources import Sources
from avs_core.errors import ConfigError, TrainingError
from avs_core.training.data import OBJECTS, Batch, CompositeBatches, StreamConfig, stack, stream
from avs_core.training.feed import FeedConfig, LabelledBatches, clip_batch, jittered, mirrored, window
from tests.avsbench_fixtures import write_avss, write_benchmark


@dataclass
class Told:
    """A labelled set whose pictures tell their clip's number, and that counts what is read."""

    labelled: tuple[tuple[int, ...], ...]
    seconds: tuple[int, ...]
    reads: list[str] = field(default_factory=list)
    name: str = "told"
    setting: Setting = "s4"
    categories: tuple[str, ...] = ("a", "b")
    version: str = "1"

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def clips(self, split: str) -> tuple[ClipRef, ...]:
        return tuple(
            ClipRef(str(i), "s4", split, str(i), T, has)
            for i, (T, has) in enumerate(zip(self.seconds, self.labelled, strict=True))
        )

    def load(self, ref: ClipRef, size: int, alignment: Alignment = "official") -> LabelledClip:
        self.reads.append(ref.clip_id)
        T = ref.seconds
        frames = np.full((T, size, size, 3), int(ref.clip_id), np.uint8)
        frames[..., 1] = np.arange(T)[:, None, None]
        labelled = np.isin(np.arange(T), ref.labelled)
        masks = np.zeros((T, size, size), bool)
        return LabelledClip(ref, frames, np.zeros((T, 1, 96, 64), np.float32), None, masks, labelled)


def told(clips: int = 10, seconds: int = 5) -> Told:
    return Told(((0,),) * clips, (seconds,) * clips)


def shown(batch: Batch) -> list[int]:
    return batch.frames[:, 0, 0, 0, 0].tolist()


def same(one: Batch, other: Batch) -> bool:
    return all(a is b or torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


def test_it_is_a_labelled_set() -> None:
    assert isinstance(told(), LabelledSet)


def test_each_epoch_shows_each_clip_in_another_order() -> None:
    feed = LabelledBatches(told(12), "train", FeedConfig(size=8))
    assert feed.epoch_steps == 3
    epochs = [[i for step in range(3) for i in shown(feed[3 * epoch + step])] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_last_batch_is_full_and_no_clip_is_left_out() -> None:
    feed = LabelledBatches(told(10), "train", FeedConfig(size=8))
    found = [shown(feed[step]) for step in range(feed.epoch_steps)]
    assert [len(batch) for batch in found] == [4, 4, 4]
    assert {i for batch in found for i in batch} == set(range(10))


def test_the_seed_decides() -> None:
    orders = [
        [shown(LabelledBatches(told(40), "train", FeedConfig(size=8, seed=seed))[i]) for i in range(5)]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_shares_of_the_processes_are_the_batch(world: int) -> None:
    config = FeedConfig(size=8, seconds=2, flip=0.5, jitter=0.3)
    data = Told(((0, 1, 2, 3, 4),) * 9, (5,) * 9)
    whole = LabelledBatches(data, "train", config)[7]
    shares = stack([LabelledBatches(data, "train", config, rank, world)[7] for rank in range(world)])
    order = [i for rank in range(world) for i in range(rank, 4, world)]
    assert same(shares, Batch(**{k: None if v is None else v[order] for k, v in vars(whole).items()}))


def test_resumed_at_a_step_it_goes_on_as_undisturbed_and_in_other_processes() -> None:
    feed = LabelledBatches(told(10), "train", FeedConfig(size=8, seconds=3, flip=0.5))
    whole, rest = list(stream(feed, 0, 8, workers=0)), list(stream(feed, 5, 8, workers=2))
    assert len(rest) == 3
    assert all(same(*pair) for pair in zip(whole[5:], rest, strict=True))


def test_only_the_clips_of_a_batch_are_read() -> None:
    data = told(10)
    feed = LabelledBatches(data, "train", FeedConfig(size=8), rank=1, world=2)
    assert data.reads == []
    batch = feed[0]
    assert data.reads == [str(i) for i in shown(batch)]
    assert len(data.reads) == 2


def test_batches_hold_clips_of_one_length() -> None:
    data = Told(((0,),) * 6, (5, 10, 5, 10, 5, 5))
    feed = LabelledBatches(data, "train", FeedConfig(size=8, clips=2))
    lengths = [feed[i].frames.shape[1] for i in range(feed.epoch_steps)]
    assert sorted(lengths) == [5, 5, 10]


def test_a_window_has_a_labelled_second_in_it() -> None:
    data = Told(((3,),), (5,))
    feed = LabelledBatches(data, "train", FeedConfig(size=8, clips=1, seconds=2))
    starts = {int(feed[i].frames[0, 0, 0, 0, 1]) for i in range(40)}
    assert starts == {2, 3}
    assert all(bool(feed[i].labelled.any()) for i in range(40))


def test_clips_without_a_label_are_left_out_and_a_split_of_such_is_refused() -> None:
    data = Told(((), (0,)), (5, 5))
    assert set(shown(LabelledBatches(data, "train", FeedConfig(size=8))[0])) == {1}
    with pytest.raises(TrainingError, match="none in its split train"):
        LabelledBatches(Told(((),), (5,)), "train", FeedConfig(size=8))


def test_more_processes_than_clips_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 clips, 5 processes"):
        LabelledBatches(told(), "train", FeedConfig(size=8), 0, 5)


def test_published_feeds_change_nothing() -> None:
    data = told(4)
    feed = LabelledBatches(data, "train", FeedConfig(size=8))
    batch = feed[0]
    for i, ref in enumerate(feed.clips(0)):
        assert np.array_equal(batch.frames[i].numpy(), data.load(ref, 8).frames)


def test_a_clip_of_composites_says_what_the_composer_says(tiny_sources: Sources) -> None:
    data = ComposedSet(tiny_sources, {"train": 1}, seconds=2)
    clip = data.load(data.clips("train")[0], 64, "aligned")
    plain = StreamConfig(size=64, clips=1, frames=2, hushed=0.0, foreign=0.0, apart=False, seed=1_000_000)
    batch = clip_batch(clip, data.categories)
    assert batch.unsure is not None
    assert not batch.unsure.any()
    assert same(replace(batch, unsure=None), CompositeBatches(tiny_sources, "train", plain, 1)[0])


def test_mirrored_turns_everything_that_is_seen(tiny_sources: Sources) -> None:
    batch = CompositeBatches(tiny_sources, "train", StreamConfig(size=64, clips=2, hushed=0.0, foreign=0.0), 9)[0]
    turned = mirrored(batch)
    assert torch.equal(turned.frames, batch.frames.flip(3))
    assert torch.equal(turned.masks, batch.masks.flip(3))
    assert batch.things is not None
    assert torch.equal(turned.things, batch.things.flip(3))
    assert turned.heard is batch.heard
    assert same(mirrored(turned), batch)


def test_jitter_changes_pictures_alone_and_within_bounds(tiny_sources: Sources) -> None:
    batch = CompositeBatches(tiny_sources, "train", StreamConfig(size=64, clips=1, hushed=0.0, foreign=0.0), 9)[0]
    changed = jittered(batch, 0.2, np.random.default_rng(0))
    assert not torch.equal(changed.frames, batch.frames)
    assert same(replace(changed, frames=batch.frames), batch)
    ratio = changed.frames.float().mean() / batch.frames.float().mean()
    assert 0.75 < float(ratio) < 1.25


def test_a_window_cuts_all_alike(tiny_sources: Sources) -> None:
    batch: Any = CompositeBatches(tiny_sources, "train", StreamConfig(size=64, clips=1, apart=False), 9)[0]
    cut = window(batch, 1, 1)
    assert all(torch.equal(v, getattr(batch, k)[:, 1:2]) for k, v in vars(cut).items() if v is not None)


def test_feeds_travel_to_workers() -> None:
    feed = LabelledBatches(told(), "train", FeedConfig(size=8))
    assert same(pickle.loads(pickle.dumps(feed))[3], feed[3])  # noqa: S301  # our own bytes


def test_a_clip_on_disk_says_that_something_is_heard_off_screen_and_not_what(tmp_path: Path) -> None:
    root = write_benchmark(tmp_path, {"train": 2})
    rows, version = from_parquet((root / MANIFEST).read_bytes())
    rows[0] = replace(rows[0], subsets=(*rows[0].subsets, "off-screen"))
    (root / MANIFEST).write_bytes(to_parquet(rows, version))
    data = open_dataset(str(root))
    for ref in data.clips("train"):
        batch = clip_batch(data.load(ref, 64), data.categories)
        assert batch.heard is not None
        assert batch.unsure is not None
        assert batch.heard.any()
        wanted = ~batch.heard if ref.clip_id == rows[0].clip_id else torch.zeros_like(batch.heard)
        assert torch.equal(batch.unsure, wanted)


def test_avss_says_that_something_is_heard_off_screen_and_not_what(tmp_path: Path) -> None:
    root = write_avss(tmp_path, {"train": 2})
    table = (root / "metadata.csv").read_text().splitlines()
    table[1] = table[1].replace(",dog,", ",dog_off-the-screen,")
    (root / "metadata.csv").write_text("\n".join(table))
    data = RegionSet(open_dataset(str(root)), OBJECTS)
    batches = [clip_batch(data.load(ref, 64), data.categories) for ref in data.clips("train")]
    assert [bool(one.unsure.any()) for one in batches if one.unsure is not None] == [True, False]
    assert torch.equal(batches[0].unsure, ~batches[0].heard)  # type: ignore[arg-type, operator]  # it is told


def test_a_clip_in_which_nothing_is_to_be_seen_goes_with_others() -> None:
    ref = ClipRef("1", "ms3", "train", "1", 1, (0,))
    shape = (1, 16, 16)
    pictures, sound = np.zeros((*shape, 3), np.uint8), np.zeros((1, 1, 96, 64), np.float32)
    empty = LabelledClip(ref, pictures, sound, None, np.zeros(shape, bool), np.ones(1, bool), instances=())
    lit = replace(
        empty,
        masks=np.ones(shape, bool),
        instances=(InstanceTruth(1, "dog", np.ones(shape, bool), np.ones(1, bool)),),
    )
    for order in ((empty, lit), (lit, empty)):
        batch = stack([clip_batch(clip, ("dog",)) for clip in order])
        assert batch.heard is not None
        assert batch.kinds is not None
        assert batch.heard[:, 0, 0].tolist() == [clip is lit for clip in order]
        assert (batch.kinds[:, 0] == 0).any(1).tolist() == [clip is lit for clip in order]
    assert clip_batch(replace(empty, instances=None), ("dog",)).heard is None, "this set tells of no objects"
