"""The figures of answers that are known beforehand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from avs_core.datasets.composed import ComposedSet
from avs_core.datasets.labelled import LabelledClip
from avs_core.datasets.sources import Sources
from avs_core.errors import TrainingError
from avs_core.metrics import FrameScores
from avs_core.training.evaluation import THRESHOLDS, Tally, evaluate


@pytest.fixture
def clips(tiny_sources: Sources) -> list[LabelledClip]:
    data = ComposedSet(tiny_sources, {"test": 5}, seconds=3)
    return [data.load(ref, 32) for ref in data.clips("test")]


def eye(frames: Tensor, sound: Tensor) -> Tensor:
    """Lights what is strongly coloured, whatever is heard."""
    spread = frames.amax(-1).float() - frames.amin(-1).float()
    return (spread - 60) / 10


def test_an_answer_that_only_looks_scores_the_same_under_every_sound(clips: list[LabelledClip]) -> None:
    found = evaluate(eye, clips, window_s=3)
    assert found.clips == 5
    assert found.own.ious == found.hushed.ious
    # the first clip is scored last under a wrong sound: that of the last one
    for threshold in THRESHOLDS:
        assert sorted(found.own.ious[threshold]) == sorted(found.foreign.ious[threshold])
        assert sorted(found.own.lit[threshold]) == sorted(found.foreign.lit[threshold])


def test_own_figures_are_those_of_the_metrics(clips: list[LabelledClip]) -> None:
    found, scores = evaluate(eye, clips, window_s=3), FrameScores()
    for clip in clips:
        frames = torch.from_numpy(clip.frames)
        scores.update(eye(frames, frames), torch.from_numpy(clip.masks))
    assert found.own.miou(0.5) == pytest.approx(scores.compute().miou)
    assert found.fscore == pytest.approx(scores.compute().fscore)
    assert sum(found.own.sounding) == scores.compute().sounding


def test_an_empty_answer_scores_the_dark_share_of_silent_frames(clips: list[LabelledClip]) -> None:
    found = evaluate(eye, clips, window_s=3)
    masks = np.concatenate([clip.masks for clip in clips])
    silent = ~masks.any((1, 2))
    assert found.empty.miou(0.5) == pytest.approx(silent.mean(), abs=1e-6)
    assert found.empty.miou_sounding(0.5) == 0.0
    assert found.empty.lit_share(0.5) == 0.0


def test_each_sound_reaches_the_answer_and_windows_cut_it(clips: list[LabelledClip]) -> None:
    heard: list[Tensor] = []

    def listen(frames: Tensor, sound: Tensor) -> Tensor:
        assert frames.shape[1] == sound.shape[1]
        heard.append(sound)
        return torch.zeros(frames.shape[:-1])

    evaluate(listen, clips[:2], window_s=2)
    assert [x.shape[1] for x in heard] == [2, 1] * 6
    own, hushed, other, foreign = heard[0], heard[2], heard[4], heard[8]
    assert torch.equal(own, foreign)
    assert not torch.equal(own, other)
    assert hushed.mean() < own.mean()


def test_the_threshold_of_the_highest_miou_is_chosen() -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.bool)
    target[0, :2] = True
    probability = torch.full((1, 4, 4), 0.58)
    probability[0, :2] = 0.9
    tally = Tally()
    tally.add(torch.logit(probability), target)
    best = [threshold for threshold in THRESHOLDS if threshold > 0.58]
    assert [threshold for threshold in THRESHOLDS if tally.miou(threshold) > 0.99] == best
    assert tally.miou(0.5) == pytest.approx(0.5)
    assert tally.lit_share(0.5) == 1.0
    assert tally.lit_share(0.6) == 0.5


def test_only_labelled_seconds_are_scored(clips: list[LabelledClip]) -> None:
    first = replace(clips[0], labelled=np.array([True, False, False]))
    found = evaluate(eye, [first], window_s=3)
    whole = evaluate(eye, clips[:1], window_s=3)
    assert len(found.own.sounding) == 1
    assert found.own.ious[0.5] == whole.own.ious[0.5][:1]


def test_no_clips_are_refused() -> None:
    with pytest.raises(TrainingError, match="at least one"):
        evaluate(eye, [], window_s=3)
