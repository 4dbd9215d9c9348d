"""A calibrated score: monotone, and the identity where nothing is to be mended."""

import pytest
import torch
from pydantic import ValidationError

from avs_core.models.calibration import Calibration


def test_one_and_zero_change_nothing() -> None:
    score = torch.tensor([0.01, 0.3, 0.5, 0.99])
    torch.testing.assert_close(Calibration(scale=1.0, shift=0.0)(score), score)


def test_it_is_the_printed_curve_keeps_the_order_and_stays_within_0_and_1() -> None:
    score = torch.linspace(0, 1, 101)
    p = Calibration(scale=0.7, shift=-1.2)(score)
    assert bool((p.diff() > 0).all())
    assert 0 <= float(p.min()) < float(p.max()) <= 1
    assert float(p[50]) == pytest.approx(1 / (1 + 2.718281828**1.2), abs=1e-6)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf")])
def test_a_curve_that_does_not_rise_is_refused(scale: float) -> None:
    with pytest.raises(ValidationError):
        Calibration(scale=scale, shift=0.0)
