"""The fit of a calibration, on objects whose chances are known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from avs_core import masks
from avs_core.audio import Alignment
from avs_core.datasets.labelled import ClipRef, InstanceTruth, LabelledClip
from avs_core.evaluation.instances import (
    Find,
    FoundObject,
    FrameInstances,
    FrameObjects,
    TrueObject,
    calibration_error,
    reliability,
)
from avs_core.models.instance_aware import InstanceAwareNet, Sight
from avs_core.training.calibrate import FEWEST, Weighable, _weighable, fit, fit_names, fit_weighing, names
from avs_core.training.held_out import HeldOut
from avs_core.training.initialise import LITE0_INPUT
from tests.evaluation.worlds import World


@dataclass(frozen=True)
class Clips(World):
    """A set of clips that lie in memory as they are."""

    those: tuple[LabelledClip, ...] = ()

    def clips(self, split: str) -> tuple[ClipRef, ...]:
        return tuple(one.ref for one in self.those)

    def load(self, ref: ClipRef, size: int, alignment: Alignment = "official") -> LabelledClip:
        return self.those[int(ref.clip_id)]


MASK = masks.encode(np.ones((4, 4), bool))


def frame(said: float, sounds: bool, name: str = "dog") -> FrameInstances:
    return FrameInstances((TrueObject("dog", MASK, sounds, False),), (FoundObject(name, MASK, 0.9, said),))


def drawn(count: int, seed: int = 0) -> list[FrameInstances]:
    """Scores that are too sure by far: the chance has a third of their logit, and is lower."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, count)
    chance = 1 / (1 + np.exp(-(logits / 3 - 0.8)))
    happened = rng.random(count) < chance
    return [frame(float(1 / (1 + np.exp(-x))), bool(y)) for x, y in zip(logits, happened, strict=True)]


def test_the_curve_that_drew_the_objects_is_found() -> None:
    found = fit(drawn(4000))
    assert found is not None
    assert found.scale == pytest.approx(1 / 3, abs=0.05)
    assert found.shift == pytest.approx(-0.8, abs=0.1)


def test_it_lowers_the_calibration_error_of_other_objects() -> None:
    found, others = fit(drawn(2000)), drawn(2000, seed=1)
    assert found is not None
    said = [frame.found[0].sounding for frame in others]
    happened = [frame.truth[0].sounding for frame in others]
    raw = calibration_error(reliability(said, happened))
    assert calibration_error(reliability(found(torch.tensor(said)).tolist(), happened)) < 0.3 * raw


def test_too_few_objects_of_a_kind_fit_nothing() -> None:
    assert fit([frame(0.9, True)] * 100 + [frame(0.1, False)] * (FEWEST - 1)) is None
    assert fit([]) is None


def test_the_order_of_scores_is_never_turned() -> None:
    found = fit([frame(0.9, False), frame(0.1, True)] * 50)
    assert found is not None
    assert found.scale > 0


def test_the_temperature_that_drew_the_names_is_found() -> None:
    stream = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(3000, 12, generator=stream)
    kinds = torch.multinomial((logits / 2.5).softmax(-1), 1, generator=stream)[:, 0]
    nothing = torch.zeros_like(logits)
    rows = list(zip(logits.log_softmax(-1), nothing, kinds.tolist(), strict=True))
    assert fit_names(rows) == (pytest.approx(2.5, abs=0.2), 0.0)
    sure = list(zip(logits.log_softmax(-1), nothing, logits.argmax(-1).tolist(), strict=True))
    assert fit_names(sure) == (1.0, 0.0)
    assert fit_names(rows[: FEWEST - 1]) == (1.0, 0.0)


def test_a_net_that_is_far_too_sure_is_measured_by_all_that_it_says() -> None:
    """Its second names lie below a millionth: that is what the temperature is to mend, not rounding."""
    stream = torch.Generator().manual_seed(1)
    count, kinds = 400, tuple("abcdefgh")
    logits, known = 30 * torch.randn(count, 8, generator=stream), 6 * torch.randn(count, 8, generator=stream)
    law = (logits / 6 + 0.5 * known).softmax(-1)
    told = [kinds[k] for k in torch.multinomial(law, 1, generator=stream)[:, 0].tolist()]
    whole = np.ones((1, 4, 4), bool)
    clips = [
        LabelledClip(
            ClipRef(str(at), "s4", "val", str(at), 1, (0,)),
            np.full((1, 4, 4, 3), 0, np.uint8),
            np.full((1, 1), at, np.float32),
            None,
            whole,
            np.ones(1, bool),
            instances=(InstanceTruth(0, kind, whole, np.ones(1, bool)),),
        )
        for at, kind in enumerate(told)
    ]

    def find(weight: float) -> Find:
        def found(frames: torch.Tensor, sound: torch.Tensor) -> list[FrameObjects]:
            at = int(sound[0, 0, 0])
            p = (logits[at] + weight * known[at]).softmax(-1)
            return [FrameObjects(torch.ones(1, 4, 4, dtype=torch.bool), p[None], torch.ones(1))]

        return found

    held_out = HeldOut(Clips(those=tuple(clips)), size=4, alignment="aligned", window_s=1)
    assert names(find, held_out, kinds) == (pytest.approx(6, abs=0.5), pytest.approx(0.5, abs=0.1))


def test_known_names_are_trusted_as_far_as_they_are_right() -> None:
    stream = torch.Generator().manual_seed(3)
    learned, known = 4 * torch.randn(3000, 10, generator=stream), 3 * torch.randn(3000, 10, generator=stream)
    kinds = torch.multinomial((learned / 2 + 0.6 * known).softmax(-1), 1, generator=stream)[:, 0].tolist()
    temperature, weight = fit_names(list(zip(learned, known, kinds, strict=True)))
    assert temperature == pytest.approx(2, abs=0.2)
    assert weight == pytest.approx(0.6, abs=0.08)
    noise = torch.randn(3000, 10, generator=stream)
    assert fit_names(list(zip(learned, noise, kinds, strict=True)))[1] < 0.1


class Elsewhere(InstanceAwareNet):
    """A net whose weights are not on the CPU, and that is told where its pictures are."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

    def look(self, frames: torch.Tensor) -> Sight:
        raise LookupError(frames.device.type)


def test_what_is_weighed_goes_where_the_net_is() -> None:
    ref = ClipRef("1", "s4", "val", "1", 2, (0, 1))
    clip = LabelledClip(
        ref,
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((2, 1, 96, 64), np.float32),
        None,
        np.zeros((2, 8, 8), bool),
        np.ones(2, bool),
    )
    with pytest.raises(LookupError, match="meta"):
        _weighable(Elsewhere(), torch.nn.Identity(), LITE0_INPUT, clip)


def weighable(rivals: bool, seed: int) -> Weighable:
    """Two things side by side, under a sound that is a little like both; the better match sounds, or whatever is."""
    stream = torch.Generator().manual_seed(seed)
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, :, :2] = masks[0, 1, :, 2:] = 1
    own = -4 * torch.rand(2, generator=stream) - 0.5
    heard = own == own.max() if rivals else own > -2.5
    told = torch.stack([own, own - own.flip(0)], -1)[None]
    return Weighable(torch.ones(1, 2), told, masks, (masks[0] * heard[:, None, None]).amax(0)[None] > 0)


def clip(rivals: bool, frames: int = 60) -> Weighable:
    each = [weighable(rivals, seed) for seed in range(frames)]
    return Weighable(
        *(torch.cat([getattr(one, part) for one in each]) for part in ("something", "told", "masks", "truth"))
    )


def silent(frames: int = FEWEST) -> Weighable:
    one, faint = weighable(True, 0), torch.full((frames, 2, 2), -9.0)
    faint[..., 1] = 0
    dark = torch.zeros(frames, 4, 4, dtype=torch.bool)
    return Weighable(torch.ones(frames, 2), faint, one.masks.expand(frames, -1, -1, -1), dark)


def test_rivals_count_where_they_tell_what_sounds_and_not_where_they_do_not() -> None:
    choice = fit_weighing([clip(rivals=True), silent()])
    each = fit_weighing([clip(rivals=False), silent()])
    assert choice is not None
    assert each is not None
    assert choice.rival / choice.own > 1
    assert each.rival / each.own < 0.6


def test_too_few_frames_weigh_nothing() -> None:
    assert fit_weighing([clip(rivals=True)]) is None
    assert fit_weighing([silent()]) is None
    assert fit_weighing([]) is None
