"""How sure a net may be of what it sees and hears, fitted on objects of the validation split after training."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from avs_core.datasets.labelled import InstanceTruth, LabelledClip
from avs_core.evaluation.instances import SEEN, Find, FrameInstances, FrameObjects, covered, frame_instances
from avs_core.metrics import frame_ious
from avs_core.models.calibration import Calibration
from avs_core.models.correlation import Weighing, evidence, noisy_or_logit
from avs_core.models.instance_aware import InstanceAwareNet
from avs_core.models.normalisation import Normalisation
from avs_core.models.overlap import ious
from avs_core.training.evaluation import THRESHOLDS
from avs_core.training.held_out import HeldOut

FEWEST = 20
"""Objects of each kind, sounding and silent, without which nothing is fitted."""

Names = tuple[float, float]
"""The temperature of the learned names, and the weight of the known ones."""

WEIGHINGS = tuple(
    Weighing(own=own, rival=rival, shift=shift)
    for own, rival, shift in product((0.2, 0.3, 0.5, 0.7, 1.0), (0.0, 0.4, 0.8, 1.2, 1.6), (0.0, 0.5, 1.0))
)

_LEAST, _SURE = 0.05, 1e-6
_TINY = torch.finfo(torch.float32).tiny
"""A floor any higher cuts off what a net that is too sure is too sure of, and with it what the temperature mends."""


def calibrate(find: Find, held_out: HeldOut, categories: Sequence[str]) -> Calibration | None:
    """See `fit`, on every object of val that something covers."""
    return fit([frame for clip, found in _found(find, held_out) for frame in frame_instances(clip, found, categories)])


def names(find: Callable[[float], Find], held_out: HeldOut, categories: Sequence[str]) -> Names:
    """See `fit_names`, on every object of val that something covers; `find` takes the weight of the known names."""
    plain, joined = (list(_named(find(weight), held_out, categories)) for weight in (0.0, 1.0))
    # the same objects: neither what is something nor where it lies depends on names
    return fit_names([(p, both - p, kind) for (p, kind), (both, _) in zip(plain, joined, strict=True)])


def _named(find: Find, held_out: HeldOut, categories: Sequence[str]) -> Iterator[tuple[Float[Tensor, " K"], int]]:
    """log p(k) of what covers each object, and its true category."""
    for clip, found in _found(find, held_out):
        for t in np.flatnonzero(clip.labelled).tolist():
            for one, i in covering(clip, t, found[t].masks):
                yield found[t].probabilities[i].float().clamp(min=_TINY).log(), categories.index(one.category)


def covering(clip: LabelledClip, t: int, masks: Bool[Tensor, "n H W"]) -> list[tuple[InstanceTruth, int]]:
    """The objects of a frame that a mask covers with an IoU of ½, each with the best one."""
    seen = [one for one in clip.instances or () if one.visible[t].mean() > SEEN]
    if not seen or not len(masks):
        return []
    best, at = ious(torch.from_numpy(np.stack([one.visible[t] for one in seen])), masks).max(1)
    hits = zip(seen, at.tolist(), (best >= 0.5).tolist(), strict=True)
    return [(one, i) for one, i, hit in hits if hit]


def fit_names(rows: Sequence[tuple[Float[Tensor, " K"], Float[Tensor, " K"], int]]) -> Names:
    """The temperature and weight (see `renamed`) under which objects get the likeliest names.

    From log p(k) and log q(k) of each, either up to a constant, and its true category. (1, 0) for fewer than FEWEST
    objects. Names that are too unsure are left alone: temperatures from 1 to 8, weights up to 1.
    """
    if len(rows) < FEWEST:
        return 1.0, 0.0
    learned, known = (torch.stack(column) for column in ([p for p, _, _ in rows], [q for _, q, _ in rows]))
    kinds = torch.tensor([kind for _, _, kind in rows])
    losses = {
        (temperature, weight): float(F.cross_entropy(learned / temperature + weight * known, kinds))
        for temperature in np.geomspace(1, 8, 32).round(3).tolist()
        for weight in np.linspace(0, 1, 21).round(2).tolist()
    }
    best: Names = min(losses, key=losses.__getitem__)
    return best


@dataclass(frozen=True)
class Weighable:
    """What is known of T frames before anything is weighed, and what sounds in them, at the size of the masks.

    something  e · p_i(not ∅): what w_i is multiplied by; told  what w_i is made of, see Weighing
    """

    something: Float[Tensor, "T N"]
    told: Float[Tensor, "T N 2"]
    masks: Float[Tensor, "T N h w"]
    truth: Bool[Tensor, "T h w"]

    def ious(self, weighing: Weighing) -> Float[Tensor, "thresholds T"]:
        """Of each frame, under each threshold."""
        lit = noisy_or_logit(self.something * weighing(self.told), self.masks)
        return torch.stack([frame_ious(lit - float(np.log(t / (1 - t))), self.truth) for t in THRESHOLDS])


def weigh(
    net: InstanceAwareNet, audio_encoder: nn.Module, normalise: Normalisation, held_out: HeldOut
) -> Weighing | None:
    """See `fit_weighing`, on the labelled frames of val."""
    with torch.inference_mode():
        return fit_weighing([_weighable(net, audio_encoder, normalise, clip) for clip in held_out.load("val")])


def _weighable(
    net: InstanceAwareNet, audio_encoder: nn.Module, normalise: Normalisation, clip: LabelledClip
) -> Weighable:
    wanted, device = torch.from_numpy(clip.labelled), next(net.parameters()).device
    found = net.look(normalise(torch.from_numpy(clip.frames)[wanted][:, None].to(device))).proposals
    audio = audio_encoder(torch.from_numpy(clip.sound)[wanted].to(device))[:, None]
    heard = torch.sigmoid(net.hearing(audio))
    p, masks = found.probabilities, found.masks
    truth = F.adaptive_avg_pool2d(torch.from_numpy(clip.masks)[wanted].float(), (masks.shape[-2], masks.shape[-1]))
    told = evidence(p, masks > 0, heard)
    something = net.active(audio)[..., None] * p.sum(-1)
    return Weighable(something[:, 0].cpu(), told[:, 0].cpu(), torch.sigmoid(masks[:, 0]).cpu(), truth > 0.5)


def fit_weighing(clips: Sequence[Weighable]) -> Weighing | None:
    """The one of WEIGHINGS with the highest M_J over all frames, each at its best threshold; None for too few frames.

    A logistic regression on the objects tells better which of all objects sound, and worse what to light: it asks as
    much of frames in which all or nothing sounds as of those with a choice (docs/log.md, 32).
    """
    lit = torch.cat([clip.truth.flatten(1).any(1) for clip in clips]) if clips else torch.zeros(0, dtype=torch.bool)
    if min(int(lit.sum()), int((~lit).sum())) < FEWEST:
        return None
    score = {one: float(torch.cat([clip.ious(one) for clip in clips], 1).mean(1).max()) for one in WEIGHINGS}
    return max(score, key=score.__getitem__)


def _found(find: Find, held_out: HeldOut) -> Iterator[tuple[LabelledClip, list[FrameObjects]]]:
    """Each clip of val, and what is found in each of its frames."""
    for clip in held_out.load("val"):
        seen, sound, step = torch.from_numpy(clip.frames), torch.from_numpy(clip.sound), held_out.window_s
        windows = [slice(t, t + step) for t in range(0, len(seen), step)]
        with torch.inference_mode():
            found = [one for at in windows for one in find(seen[None, at], sound[None, at])]
        yield clip, found


def fit(frames: Iterable[FrameInstances]) -> Calibration | None:
    """The logistic regression of "it sounds" on the logit of the raw score; None for too few objects of a kind.

    A curve that would fall, or hardly rises, is made to rise by `_LEAST`: the order of the scores must not turn.
    """
    pairs = [(that.sounding, one.sounding) for one, that in covered(list(frames))]
    happened = np.array([sounds for _, sounds in pairs], bool)
    if min(happened.sum(), (~happened).sum()) < FEWEST:
        return None
    said = np.clip([score for score, _ in pairs], _SURE, 1 - _SURE)
    curve = LogisticRegression(C=1e6).fit(np.log(said / (1 - said))[:, None], happened)
    return Calibration(scale=max(float(curve.coef_[0, 0]), _LEAST), shift=float(curve.intercept_[0]))
