"""How sure a net may be of what it sees and hears, fitted on objects of the validation split after training."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from avs_core.datasets.labelled import LabelledClip
from avs_core.evaluation.instances import SEEN, Find, FrameInstances, FrameObjects, covered, frame_instances
from avs_core.models.association import ious
from avs_core.models.calibration import Calibration
from avs_core.training.held_out import HeldOut

FEWEST = 20
"""Objects of each kind, sounding and silent, without which nothing is fitted."""

_LEAST, _SURE = 0.05, 1e-6


def calibrate(find: Find, held_out: HeldOut, categories: Sequence[str]) -> Calibration | None:
    """See `fit`, on every object of val that something covers."""
    return fit([frame for clip, found in _found(find, held_out) for frame in frame_instances(clip, found, categories)])


def name_temperature(find: Find, held_out: HeldOut, categories: Sequence[str]) -> float:
    """See `fit_temperature`, on every object of val that something covers."""
    rows: list[tuple[Tensor, int]] = []
    for clip, found in _found(find, held_out):
        for t in np.flatnonzero(clip.labelled).tolist():
            seen = [one for one in clip.instances if one.visible[t].mean() > SEEN]
            if seen and len(found[t].masks):
                truth = torch.from_numpy(np.stack([one.visible[t] for one in seen]))
                best, at = ious(truth, found[t].masks).max(1)
                p = found[t].probabilities.clamp(min=_SURE).log()
                rows += [
                    (p[i], categories.index(one.category))
                    for one, i, hit in zip(seen, at.tolist(), (best >= 0.5).tolist(), strict=True)
                    if hit
                ]
    return fit_temperature(rows)


def fit_temperature(rows: Sequence[tuple[Float[Tensor, " K"], int]]) -> float:
    """The temperature under which objects get the likeliest names, from the log p(k) of each and its true category.

    1 for fewer than FEWEST objects. Looked for between 1 and 8: names that are too unsure are left alone.
    """
    if len(rows) < FEWEST:
        return 1.0
    logits, kinds = torch.stack([row for row, _ in rows]), torch.tensor([kind for _, kind in rows])
    losses = {t: float(F.cross_entropy(logits / t, kinds)) for t in np.geomspace(1, 8, 64).round(3).tolist()}
    best: float = min(losses, key=losses.__getitem__)
    return best


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
