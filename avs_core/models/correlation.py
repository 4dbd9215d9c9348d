"""Where what is seen and what is heard meet: the correlation of the instance-aware model.

Symbols, and what of this is the paper's, as in avs_core.models.instance_aware.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from avs_core.models.overlap import ious

Composition = Literal["instances", "categories", "all"]

APART = 0.3
"""IoU above which two queries look at one thing and are no rivals."""

TWICE = math.log(2)
"""As much as it can count for an object that it is heard better than every rival."""

_SURE, _FAINT = 1e-6, 1e-5


class Weighing(BaseModel):
    """How far to trust that an object is heard, given that others could be what is heard: s_i = p_i(not ∅) · w_i with

        w_i = sigmoid(own · log a_i + rival · min(log(a_i / a_j), log 2) + shift)

    a_i = Σ_k p(k | i is something) · a_k, and j the rival that is heard best: of the other objects, weighted by
    p_j(not ∅), that which has the highest a_j. What is heard is mistaken for something alike more easily than the two
    things in a picture for one another, so a better explanation at hand makes an object less likely; that there is none
    says little, or whatever stands alone would be lit in silence. Three numbers that are fitted on the validation split
    after training.                                                                                             (ours)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    own: float = Field(ge=0)
    rival: float = Field(ge=0)
    shift: float

    def __call__(self, evidence: Float[Tensor, "*frames N 2"]) -> Float[Tensor, "*frames N"]:
        """w_i of what `evidence` says."""
        return torch.sigmoid(self.own * evidence[..., 0] + self.rival * evidence[..., 1] + self.shift)


@dataclass(frozen=True)
class Proposals:
    """What the queries of each frame say.

    classes  logits of K categories and, last, of ∅
    masks    logits at the finest stride
    """

    classes: Float[Tensor, "B T N K1"]
    masks: Float[Tensor, "B T N h w"]

    @property
    def probabilities(self) -> Float[Tensor, "B T N K"]:
        """p_i(k) of the categories; what is missing to 1 is p_i(∅)."""
        return self.classes.float().softmax(-1)[..., :-1]


def correlate(
    found: Proposals,
    heard: Float[Tensor, "B T K"],
    composition: Composition,
    weighing: Weighing | None = None,
    active: Float[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T h w"], Float[Tensor, "B T N"]]:
    """Logits of M at the size of the masks, and s_i, where `heard` are the logits of a_k and `active` is e, if any."""
    scores = torch.sigmoid(heard.float())
    e = torch.ones_like(scores[..., :1]) if active is None else active.float()[..., None]
    p, m = found.probabilities.float(), torch.sigmoid(found.masks.float())
    if composition == "all":
        sounding = p.sum(-1)
    elif weighing is not None:
        sounding = e * p.sum(-1) * weighing(evidence(p, found.masks > 0, scores))
    else:
        sounding = e * (p * scores[..., None, :]).sum(-1)
    sounding = sounding.clamp(max=1)  # rounded sums of probabilities
    if composition != "categories":
        return noisy_or_logit(sounding, m), sounding
    best, at = p.max(dim=2)
    chosen = m.gather(2, at[..., None, None].expand(*at.shape, *m.shape[-2:]))
    return noisy_or_logit(e * scores * best, chosen), sounding


def evidence(
    p: Float[Tensor, "B T N K"], masks: Bool[Tensor, "B T N h w"], scores: Float[Tensor, "B T K"]
) -> Float[Tensor, "B T N 2"]:
    """log a_i and min(log(a_i / a_j), log 2) of each query, see Weighing; `scores` are the a_k."""
    something = p.sum(-1)
    own = ((p * scores[..., None, :]).sum(-1) / something.clamp(min=_FAINT)).clamp(min=_FAINT)
    other = torch.stack([ious(frame, frame) for frame in masks.flatten(0, 1)]) < APART
    # a query that shows nothing overlaps with nothing, itself included
    other &= masks.flatten(0, 1).flatten(2).any(-1)[:, None]
    rivals = other.unflatten(0, own.shape[:2]) * (something * own)[..., None, :]
    ahead = own.log() - rivals.amax(-1).clamp(min=_FAINT).log()
    return torch.stack([own.log(), ahead.clamp(max=TWICE)], -1)


def noisy_or_logit(
    shares: Float[Tensor, "*clips N"], masks: Float[Tensor, "*clips N h w"]
) -> Float[Tensor, "*clips h w"]:
    """Logit of 1 − Π_i (1 − shares_i · masks_i), all in [0, 1]; finite at both ends."""
    each = (shares[..., None, None] * masks).clamp(max=1 - _SURE)
    # with x = −Σ log(1 − …) the noisy-or is 1 − exp(−x), and its logit log(exp(x) − 1)
    x = (-torch.log1p(-each).sum(-3)).clamp(min=_SURE)
    return x + torch.log(-torch.expm1(-x))
