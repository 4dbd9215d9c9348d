"""Composites as a labelled set are the composer's clips."""

import pickle

import numpy as np
import pytest

from avs_core.datasets.composed import HELD_OUT_SEED, ComposedSet
from avs_core.datasets.composites import Composer, ComposerConfig
from avs_core.datasets.labelled import LabelledSet
from avs_core.datasets.sources import Sources
from avs_core.errors import ConfigError, TrainingError


@pytest.fixture
def data(tiny_sources: Sources) -> ComposedSet:
    return ComposedSet(tiny_sources, {"val": 2, "test": 0}, seconds=3)


def test_it_is_a_labelled_set(data: ComposedSet) -> None:
    assert isinstance(data, LabelledSet)
    assert data.splits() == ("val",)
    assert [ref.clip_id for ref in data.clips("val")] == [str(HELD_OUT_SEED), str(HELD_OUT_SEED + 1)]


def test_a_clip_is_what_the_composer_makes(data: ComposedSet, tiny_sources: Sources) -> None:
    clip = data.load(data.clips("val")[1], 48)
    made = Composer(tiny_sources, "val", ComposerConfig(size=48, seconds=3)).compose(HELD_OUT_SEED + 1)
    assert np.array_equal(clip.frames, made.frames)
    assert np.array_equal(clip.masks, made.masks)
    assert clip.waveform is not None
    assert np.array_equal(clip.waveform, made.waveform)
    assert clip.labelled.all()
    assert [one.category for one in clip.instances] == [one.category for one in made.objects]


def test_it_travels_without_what_it_has_decoded(data: ComposedSet) -> None:
    ref = data.clips("val")[0]
    before = len(pickle.dumps(data))
    clip = data.load(ref, 48)
    sent = pickle.dumps(data)
    assert len(sent) == before
    again = pickle.loads(sent).load(ref, 48)  # noqa: S301  # our own bytes
    assert np.array_equal(again.frames, clip.frames)


def test_other_splits_are_refused(data: ComposedSet) -> None:
    with pytest.raises(ConfigError, match=r"val, test; got dev"):
        data.clips("dev")
    with pytest.raises(TrainingError, match="no clips"):
        data.clips("test")
