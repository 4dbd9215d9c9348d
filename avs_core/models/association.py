"""Which object of one frame is which of the next: an object keeps its number for as long as it can be followed. (ours)

    affinity = ½ · (IoU of the masks + Σ_k min(p(k), p'(k)))

both parts in [0, 1]: where it is, and what it is. Objects and tracks are paired so that the sum of the affinities is
the highest (Hungarian algorithm); a pair below `LIKE` is none, and the object starts a track of its own. A track that
finds no object waits `MEMORY_S` seconds for it: something may pass in front.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

LIKE = 0.35
MEMORY_S = 5.0


@dataclass(frozen=True)
class _Track:
    """What is remembered of an object: its mask and classes when it was last seen, in seconds."""

    number: int
    mask: Bool[Tensor, "h w"]
    classes: Float[Tensor, " K"]
    seen_s: float


class Associator:
    """Numbers the objects of frames that come in the order of time, from 1. One for each clip."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._last = 0

    def __call__(self, time_s: float, masks: Bool[Tensor, "n h w"], classes: Float[Tensor, "n K"]) -> tuple[int, ...]:
        """The numbers of the n objects of the frame at `time_s`; `classes` are probabilities."""
        alive = [track for track in self._tracks if time_s - track.seen_s <= MEMORY_S]
        known = self._paired(alive, masks, classes)
        numbers = []
        for i in range(len(masks)):
            number = alive[known[i]].number if i in known else self._new()
            numbers.append(number)
        found = [_Track(number, masks[i], classes[i], time_s) for i, number in enumerate(numbers)]
        self._tracks = [track for track in alive if track.number not in numbers] + found
        return tuple(numbers)

    def _paired(
        self, tracks: list[_Track], masks: Bool[Tensor, "n h w"], classes: Float[Tensor, "n K"]
    ) -> dict[int, int]:
        """Number of an object → place of its track."""
        if not tracks or not len(masks):
            return {}
        before = torch.stack([track.mask for track in tracks])
        kinds = torch.stack([track.classes for track in tracks])
        overlap = torch.minimum(classes[:, None], kinds[None]).sum(-1)
        like = ((ious(masks, before) + overlap) / 2).double().cpu().numpy()
        return {int(i): int(j) for i, j in zip(*linear_sum_assignment(-like), strict=True) if like[i, j] >= LIKE}

    def _new(self) -> int:
        self._last += 1
        return self._last


def ious(one: Bool[Tensor, "n h w"], other: Bool[Tensor, "m h w"]) -> Float[Tensor, "n m"]:
    """IoU of each pair; 0 where both are empty."""
    a, b = one.flatten(1).float(), other.flatten(1).float()
    both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1)[None] - both).clamp(min=1)
