"""Average precision and names, on frames of which the answer is known by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avs_core import masks
from avs_core.datasets.labelled import ClipRef, InstanceTruth, LabelledClip
from avs_core.evaluation.instances import (
    FoundObject,
    FrameInstances,
    FrameObjects,
    TrueObject,
    calibration_error,
    frame_instances,
    instance_figures,
    reliability,
)
from avs_core.masks import Rle


def box(left: int, side: int = 8) -> Rle:
    """A square on a picture of 32×32."""
    mask = np.zeros((32, 32), bool)
    mask[:side, left : left + side] = True
    return masks.encode(mask)


def true(category: str, left: int, sounding: bool = True, scrap: bool = False) -> TrueObject:
    return TrueObject(category, box(left), sounding, scrap)


def found(category: str, left: int, score: float = 0.9, sounding: float = 0.9) -> FoundObject:
    return FoundObject(category, box(left), score, sounding)


BOTH = (true("dog", 0), true("cat", 16, sounding=False))


def test_everything_right_is_one() -> None:
    figures = instance_figures([FrameInstances(BOTH, (found("dog", 0), found("cat", 16, sounding=0.1)))])
    assert figures is not None
    assert (figures.objects, figures.sounding) == (2, 1)
    assert (figures.ap, figures.ap50, figures.ap_any) == pytest.approx((1, 1, 1))
    assert (figures.recalled, figures.named, figures.heard_ap50) == pytest.approx((1, 1, 1))


def test_calibration_error_is_the_printed_formula() -> None:
    def error(said: list[float], happened: list[bool]) -> float:
        return calibration_error(reliability(said, happened))

    assert error([0.9, 0.9, 0.1, 0.1], [True, True, False, False]) == pytest.approx(0.1)
    assert error([0.75] * 4, [True, True, True, False]) == pytest.approx(0)
    assert error([1.0, 0.0], [False, True]) == pytest.approx(1)
    assert error([], []) == 0


def test_reliability_is_the_mean_and_the_share_of_each_bin_that_holds_anything() -> None:
    said, happened = [0.02, 0.04, 0.51, 0.59, 1.0], [False, True, True, True, False]
    assert reliability(said, happened) == [
        (pytest.approx(0.03), 0.5, 2),
        (pytest.approx(0.55), 1.0, 2),
        (1.0, 0.0, 1),
    ]


def test_the_calibration_is_that_of_what_is_covered() -> None:
    figures = instance_figures([FrameInstances(BOTH, (found("dog", 0, sounding=0.7), found("cow", 16, sounding=0.4)))])
    assert figures is not None
    assert figures.ece == pytest.approx((0.3 + 0.4) / 2)
    assert [(share, count) for _, share, count in figures.reliability] == [(0.0, 1), (1.0, 1)]


def test_a_wrong_name_costs_ap_and_not_the_ap_of_whatever() -> None:
    figures = instance_figures([FrameInstances(BOTH, (found("dog", 0), found("cow", 16)))])
    assert figures is not None
    assert figures.ap50 == pytest.approx(0.5)
    assert figures.ap_any == pytest.approx(1)
    assert (figures.recalled, figures.named) == (1, 0.5)


def test_what_is_heard_is_ranked_by_its_sound() -> None:
    right, wrong = (
        instance_figures([FrameInstances(BOTH, (found("dog", 0, sounding=a), found("cat", 16, sounding=1 - a)))])
        for a in (0.9, 0.1)
    )
    assert right is not None
    assert wrong is not None
    assert right.heard_ap50 == pytest.approx(1)
    assert wrong.heard_ap50 == pytest.approx(0.5, abs=0.01), "the silent one comes first"
    assert right.ap == wrong.ap


def test_a_scrap_is_neither_asked_for_nor_wrong() -> None:
    frame = FrameInstances((true("dog", 0), true("cat", 16, scrap=True)), (found("dog", 0), found("cat", 16, 0.99)))
    for one in (frame, replace(frame, found=frame.found[:1])):
        figures = instance_figures([one])
        assert figures is not None
        assert (figures.objects, figures.ap) == (1, pytest.approx(1))


def test_nothing_found_is_nothing_and_nothing_known_is_no_figure() -> None:
    figures = instance_figures([FrameInstances(BOTH, ())])
    assert figures is not None
    assert (figures.ap, figures.recalled, figures.named, figures.heard_ap50) == (0, 0, 0, 0)
    assert instance_figures([FrameInstances((), (found("dog", 0),))]) is None
    assert instance_figures([]) is None


def test_the_order_of_the_frames_makes_no_difference_to_different_scores() -> None:
    frames = [
        FrameInstances(BOTH, (found("dog", 2, 0.8, 0.3), found("cat", 16, 0.7, 0.2))),
        FrameInstances((true("cow", 4),), (found("dog", 4, 0.9, 0.8), found("cow", 20, 0.4, 0.7))),
        FrameInstances((), (found("cow", 9, 0.6),)),
    ]
    assert instance_figures(frames) == instance_figures(frames[::-1])


def test_labelled_frames_with_what_is_seen_in_them() -> None:
    visible = np.zeros((2, 32, 32), bool)
    visible[:, :8, :8] = True
    scrap = np.zeros_like(visible)
    scrap[1, 31, :4] = True
    clip = LabelledClip(
        ref=ClipRef("one", "ms3", "test", "one", 2, (1,)),
        frames=np.zeros((2, 32, 32, 3), np.uint8),
        sound=np.zeros((2, 1, 96, 64), np.float32),
        waveform=None,
        masks=visible,
        labelled=np.array([False, True]),
        instances=(
            InstanceTruth(1, "dog", visible, np.array([True, False])),
            InstanceTruth(2, "cat", scrap, np.array([True, True])),
        ),
    )
    seen = FrameObjects(torch.from_numpy(visible), torch.tensor([[0.2, 0.7], [0.5, 0.1]]), torch.tensor([0.3, 0.4]))
    (frame,) = frame_instances(clip, [seen, seen], ("cat", "dog"))
    assert [(one.category, one.sounding, one.scrap) for one in frame.truth] == [
        ("dog", False, False),
        ("cat", True, True),
    ]
    assert [(one.category, round(one.score, 3), round(one.sounding, 3)) for one in frame.found] == [
        ("dog", 0.7, 0.3),
        ("cat", 0.5, 0.4),
    ]
    assert frame.found[0].mask == box(0)
