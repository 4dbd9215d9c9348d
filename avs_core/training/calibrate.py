"""The two numbers of a bundle's calibration, fitted on objects of the validation split."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from avs_core.evaluation.instances import Find, FrameInstances, covered, frame_instances
from avs_core.models.calibration import Calibration
from avs_core.training.held_out import HeldOut

FEWEST = 20
"""Objects of each kind, sounding and silent, without which nothing is fitted."""

_LEAST, _SURE = 0.05, 1e-6


def calibrate(find: Find, held_out: HeldOut, categories: Sequence[str]) -> Calibration | None:
    """See `fit`, on every object of val that something covers."""
    return fit(_frames(find, held_out, categories))


@torch.inference_mode()
def _frames(find: Find, held_out: HeldOut, categories: Sequence[str]) -> list[FrameInstances]:
    frames: list[FrameInstances] = []
    for clip in held_out.load("val"):
        seen, sound, step = torch.from_numpy(clip.frames), torch.from_numpy(clip.log_mel), held_out.window_s
        found = [
            one for t in range(0, len(seen), step) for one in find(seen[None, t : t + step], sound[None, t : t + step])
        ]
        frames += frame_instances(clip, found, categories)
    return frames


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
