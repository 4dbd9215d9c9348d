"""How sure a net may be of what it sees and hears, fitted on objects of the validation split after training."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from avs_core.datasets.labelled import InstanceTruth, LabelledClip
from avs_core.evaluation.instances import SEEN, Find, FrameInstances, FrameObjects, covered, frame_instances
from avs_core.models.association import ious
from avs_core.models.calibration import Calibration
from avs_core.models.correlation import Weighing, evidence
from avs_core.models.instance_aware import InstanceAwareNet
from avs_core.models.normalisation import Normalisation
from avs_core.models.segmenter import enlarged
from avs_core.training.held_out import HeldOut

FEWEST = 20
"""Objects of each kind, sounding and silent, without which nothing is fitted."""

Names = tuple[float, float]
"""The temperature of the learned names, and the weight of the known ones."""

_LEAST, _SURE = 0.05, 1e-6


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
                yield found[t].probabilities[i].clamp(min=_SURE).log(), categories.index(one.category)


def covering(clip: LabelledClip, t: int, masks: Bool[Tensor, "n H W"]) -> list[tuple[InstanceTruth, int]]:
    """The objects of a frame that a mask covers with an IoU of ½, each with the best one."""
    seen = [one for one in clip.instances if one.visible[t].mean() > SEEN]
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


def weigh(
    net: InstanceAwareNet, audio_encoder: nn.Module, normalise: Normalisation, held_out: HeldOut
) -> Weighing | None:
    """See `fit_weighing`, on every object of val that something covers."""
    rows: list[tuple[Tensor, bool]] = []
    with torch.inference_mode():
        for clip in held_out.load("val"):
            found = net.look(normalise(torch.from_numpy(clip.frames)[:, None])).proposals
            heard = torch.sigmoid(net.hearing(audio_encoder(torch.from_numpy(clip.log_mel))))[:, None]
            told = evidence(found.probabilities, found.masks > 0, heard)[:, 0]
            for t in np.flatnonzero(clip.labelled).tolist():
                lit = enlarged(found.masks[t, 0], clip.frames.shape[1:3]) > 0
                rows += [(told[t, i], bool(one.sounding[t])) for one, i in covering(clip, t, lit)]
    return fit_weighing(rows)


def fit_weighing(rows: Sequence[tuple[Float[Tensor, " 2"], bool]]) -> Weighing | None:
    """The logistic regression of "it sounds" on the evidence; None for too few objects of a kind.

    What would count against an object although it is heard counts nothing.
    """
    happened = np.array([sounds for _, sounds in rows], bool)
    if min(happened.sum(), (~happened).sum()) < FEWEST:
        return None
    told = torch.stack([row for row, _ in rows]).numpy()
    curve = LogisticRegression().fit(told, happened)
    own, rival = np.maximum(curve.coef_[0], 0).tolist()
    return Weighing(own=own, rival=rival, shift=float(curve.intercept_[0]))


def _found(find: Find, held_out: HeldOut) -> Iterator[tuple[LabelledClip, list[FrameObjects]]]:
    """Each clip of val, and what is found in each of its frames."""
    for clip in held_out.load("val"):
        seen, sound, step = torch.from_numpy(clip.frames), torch.from_numpy(clip.log_mel), held_out.window_s
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
