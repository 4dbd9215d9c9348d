"""Overlap of masks as tensors."""

import pytest
import torch
from torch import Tensor

from avs_core.models.overlap import ious


def box(left: int) -> Tensor:
    """A square of 4×4 on a map of 16×16."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:4, left : left + 4] = True
    return mask


def test_iou_of_pairs() -> None:
    assert ious(torch.stack([box(0)]), torch.stack([box(0), box(2), box(8)]))[0].tolist() == pytest.approx(
        [1.0, 8 / 24, 0.0]
    )
    empty = torch.zeros(1, 16, 16, dtype=torch.bool)
    assert ious(empty, empty).item() == 0
