"""Losses of the instance-aware model: what the queries of one frame should say, and what should be heard.

Liu et al., "Audio-Visual Segmentation by Exploring Cross-Modal Mutual Semantics", ACM MM 2023, arXiv 2307.16620,
written from the abstract; (ours) marks what is our own. K categories and ∅; N queries with p_i over K + 1 classes and
masks m_i; M given objects with category k_j and mask y_j.

Set prediction (MaskFormer, Cheng et al., NeurIPS 2021; weights of Mask2Former). Objects are assigned to queries where
it costs least under 2 · (−p_i(k_j)) + 5 · BCE(m_i, y_j) + 5 · Dice(m_i, y_j), found by the Hungarian algorithm, and

    L_sight = 2 · Σ_i w_i · CE_i / Σ_i w_i + 5 · mean_j BCE + 5 · mean_j Dice

where an assigned query has w_i = 1 and −log p_i(k_j), and any other w_i = 0.1 and −log p_i(∅). It is the mean over what
each layer of the decoder proposes; the cross entropy of the cells from which queries are picked is added (`cell_loss`).

The silent object-aware objective (the paper's aim, our formulas). Only what sounds has a mask, and a silent object must
not be taught to be ∅. A query that no object was assigned to is *in doubt* when it names a category with more than ½
and less than ½ of its mask lies on what is given. In doubt

    plain    −log p_i(∅), like any other: MaskFormer as it is
    ignore   nothing
    soft     −log (1 − Σ_k p_i(k)) over the categories k that are given in this frame: it is whatever, but none of these
    pseudo   the proposals of a frozen segmenter are given as objects too; what is then still in doubt is as in plain

An object may be given without a category, where the data tell none (ours): then p_i(k_j) is 1 − p_i(∅) above.

Correlation: L_corr = BCE(M, Y) + Dice(M, Y) with Y all that sounds. Nothing says which category is heard: a_k moves
only through the objects that it lights.                                                               (formula ours)
Or of every picture under every sound of a batch (`crossed_loss`, ours). a_k still moves only through what it lights,
but that a cow is lit under the sound of another clip has to be known from what that sound is of: so much is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from avs_core.errors import ConfigError

NAMING, COVERING, OVERLAPPING = 2.0, 5.0, 5.0
"""Weights of the class, of the mask's BCE and of its Dice."""

UNASSIGNED = 0.1
"""Weight of a query that is no object."""

UNNAMED = -1
"""The kind of a given object whose category nobody says."""

DOUBT = 0.5
DICE_SMOOTH = 1.0

SilentAware = Literal["plain", "ignore", "soft", "pseudo"]


@dataclass(frozen=True)
class Given:
    """The objects of one frame that are known.

    kinds  category of each, or UNNAMED; masks  theirs, as shares of each position in [0, 1]
    """

    kinds: Int64[Tensor, " M"]
    masks: Float[Tensor, "M h w"]


def sight_loss(
    classes: Float[Tensor, "F N K1"],
    masks: Float[Tensor, "F N h w"],
    given: Sequence[Given],
    silent: SilentAware = "plain",
) -> dict[str, Float[Tensor, ""]]:
    """{"class", "mask", "dice"} of F frames, weighted; masks as logits. The mask terms mean over all given objects.

    Raises ConfigError where there are not as many lists of objects as frames, or more objects than queries.
    """
    if len(given) != len(classes):
        raise ConfigError(f"each frame needs its objects: {len(classes)} frames, {len(given)} lists of objects")
    pairs = [match(classes[f], masks[f], one) for f, one in enumerate(given)]
    frames = zip(classes, masks, given, pairs, strict=True)
    named = [_naming(*frame, silent) for frame in frames]
    losses, weights = (torch.cat(column) for column in zip(*named, strict=True))
    said = torch.cat([masks[f, queries] for f, (queries, _) in enumerate(pairs)])
    wanted = torch.cat([one.masks[objects] for one, (_, objects) in zip(given, pairs, strict=True)]).to(said)
    objects = max(1, len(said))
    return {
        "class": NAMING * (losses * weights).sum() / weights.sum().clamp(min=1),
        "mask": COVERING * _bce(said, wanted).sum() / objects,
        "dice": OVERLAPPING * _dice(said, wanted).sum() / objects,
    }


@torch.no_grad()
def match(
    classes: Float[Tensor, "N K1"], masks: Float[Tensor, "N h w"], given: Given
) -> tuple[Int64[Tensor, " M"], Int64[Tensor, " M"]]:
    """The cheapest assignment: queries and their objects. Raises ConfigError for more objects than queries."""
    N, M = len(classes), len(given.kinds)
    if M > N:
        raise ConfigError(f"a net of {N} queries can't learn a frame of {M} objects: give it more queries")
    if not M:
        none = torch.zeros(0, dtype=torch.long, device=classes.device)
        return none, none
    said, wanted = masks.float()[:, None].expand(-1, M, -1, -1), given.masks.float()[None].expand(N, -1, -1, -1)
    cost = (
        COVERING * _bce(said, wanted)
        + OVERLAPPING * _dice(said, wanted)
        - NAMING * _log_likelihood(classes.float(), given.kinds).exp()
    )
    # a net that has gone astray is told by its loss, which the loop looks at
    queries, objects = linear_sum_assignment(torch.nan_to_num(cost).cpu().numpy())
    return torch.as_tensor(queries, device=classes.device), torch.as_tensor(objects, device=classes.device)


def cell_loss(
    cells: Float[Tensor, "F K1 y x"], given: Sequence[Given], silent: SilentAware = "plain"
) -> Float[Tensor, ""]:
    """Cross entropy of the category of each cell, that of the given object which covers most of it; (ours).

    A cell that no object covers is treated as a query that none was assigned to.
    """
    size, K = cells.shape[-2:], cells.shape[1] - 1
    terms, weights = [], []
    for logits, one in zip(cells.float(), given, strict=True):
        labels = _labels(one, size, K).flatten()
        rows = logits.flatten(1).T
        loss, weight = _unassigned(rows, torch.zeros_like(rows[:, 0]), one.kinds, silent)
        covered = labels < K
        named = F.cross_entropy(rows, labels.clamp(min=0), reduction="none")
        named = torch.where(labels == UNNAMED, -_log_something(rows), named)
        terms.append(torch.where(covered, named, loss))
        weights.append(torch.where(covered, 1.0, (weight > 0).float()))
    weight = torch.cat(weights)
    return (torch.cat(terms) * weight).sum() / weight.sum().clamp(min=1)


def correlation_loss(
    logits: Float[Tensor, "F H W"], target: Bool[Tensor, "F H W"] | Float[Tensor, "F H W"]
) -> dict[str, Float[Tensor, ""]]:
    """{"bce", "dice"} of M against all that sounds; Dice means over the frames in which something does."""
    wanted = target.to(logits.dtype)
    sounding = wanted.flatten(1).any(1)
    dice = (_dice(logits, wanted) * sounding).sum() / sounding.sum().clamp(min=1)
    return {"bce": _bce(logits, wanted).mean(), "dice": dice}


def crossed_loss(
    logits: Float[Tensor, "P h w"], target: Float[Tensor, "P h w"], seen: Float[Tensor, "P h w"]
) -> dict[str, Float[Tensor, ""]]:
    """{"lit", "dark"}: BCE of M where something is seen, over the clips that light something and over those that don't.

    Σ w · BCE / Σ w in each clip, w = `seen` in [0, 1]. Most of a picture is empty and stays dark whatever is heard: a
    mean over all of it would hardly tell a sound that lights nothing from one that does, and Dice knows lit clips
    alone, so that everything would be heard in everything (docs/log.md, 28).                                    (ours)
    """
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = (each * seen).sum((-2, -1)) / seen.sum((-2, -1)).clamp(min=1)
    lit = target.flatten(1).any(1)
    return {name: (bce * those).sum() / those.sum().clamp(min=1) for name, those in (("lit", lit), ("dark", ~lit))}


def _naming(
    classes: Float[Tensor, "N K1"],
    masks: Float[Tensor, "N h w"],
    given: Given,
    pair: tuple[Int64[Tensor, " M"], Int64[Tensor, " M"]],
    silent: SilentAware,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Loss of each query's class, and its weight."""
    queries, objects = pair
    rows = classes.float()
    loss, weight = _unassigned(rows, share_on_given(torch.sigmoid(masks.float()), given), given.kinds, silent)
    assigned = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    assigned[queries] = True
    said = _log_likelihood(rows[queries], given.kinds[objects]).diagonal()
    named = torch.zeros_like(rows[:, 0]).index_put((queries,), -said)
    return torch.where(assigned, named, loss), torch.where(assigned, 1.0, UNASSIGNED * weight)


def _log_something(rows: Float[Tensor, "P K1"]) -> Float[Tensor, " P"]:
    """log (1 − p(∅))."""
    return rows.log_softmax(-1)[:, :-1].logsumexp(1)


def _log_likelihood(rows: Float[Tensor, "P K1"], kinds: Int64[Tensor, " M"]) -> Float[Tensor, "P M"]:
    """log p(k) of each row for each kind; log (1 − p(∅)) for UNNAMED."""
    kinds = kinds.to(rows.device)
    named = rows.log_softmax(-1)[:, kinds.clamp(min=0)]
    return torch.where(kinds == UNNAMED, _log_something(rows)[:, None], named)


def _unassigned(
    rows: Float[Tensor, "P K1"], on_given: Float[Tensor, " P"], kinds: Int64[Tensor, " M"], silent: SilentAware
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Loss of what no object was assigned to, and its weight: 0 for what the objective leaves alone."""
    log_p = rows.log_softmax(-1)
    loss, weight = -log_p[:, -1], torch.ones_like(rows[:, 0])
    doubt = (log_p[:, :-1].amax(1).detach().exp() > DOUBT) & (on_given < DOUBT)
    if silent == "ignore":
        weight = weight.masked_fill(doubt, 0.0)
    elif silent == "soft":
        others = torch.ones(rows.shape[1], dtype=torch.bool, device=rows.device)
        others[kinds[kinds != UNNAMED]] = False
        loss = torch.where(doubt, -log_p[:, others].logsumexp(1), loss)
    return loss, weight


@torch.no_grad()
def share_on_given(said: Float[Tensor, "N h w"], given: Given) -> Float[Tensor, " N"]:
    """Which share of each mask, in [0, 1], lies on given objects."""
    known = given.masks.sum(0).clamp(max=1).to(said) if len(given.kinds) else torch.zeros_like(said[0])
    return (said * known).sum((-2, -1)) / said.sum((-2, -1)).clamp(min=1e-6)


def _labels(given: Given, size: torch.Size, none: int) -> Int64[Tensor, "y x"]:
    """The category that covers most of each cell, if any covers half of it."""
    labels = torch.full(tuple(size), none, device=given.kinds.device)
    if len(given.kinds):
        share, which = F.adaptive_avg_pool2d(given.masks, (size[0], size[1])).max(0)
        labels = torch.where(share > DOUBT, given.kinds[which], labels)
    return labels


def _bce(logits: Float[Tensor, "*n h w"], target: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n"]:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((-2, -1))


def _dice(logits: Float[Tensor, "*n h w"], target: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n"]:
    probability = torch.sigmoid(logits)
    both, total = (probability * target).sum((-2, -1)), (probability + target).sum((-2, -1))
    return 1 - (2 * both + DICE_SMOOTH) / (total + DICE_SMOOTH)
