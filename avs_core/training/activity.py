"""Learning what is more than noise, after training: see avs_core.models.activity.

From recordings of the training split with silent seconds before and after them, over the noise that composites have,
and from noise alone.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float32
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from avs_core.audio import FrontEnd
from avs_core.clip import AUDIO_RATE
from avs_core.datasets.composites import Composer, ComposerConfig
from avs_core.datasets.sources import Sources
from avs_core.models.activity import Activity
from avs_core.training.data import GRID, hush, noise
from avs_core.training.swaps import some_voice

SECONDS, TAKES = 5, 10
"""How long a take is, and how many there are of each recording."""

NOISY, HUSHED = 0.3, 0.04
"""Takes of noise and of near silence alone, a take of a recording."""

SHORTEST = 1.0
"""Seconds for which a recording is heard in its take, at least."""

_STRENGTH = 0.01
"""Of the regression, against which its L2 penalty counts: the inverse of λ."""

Take = tuple[Float32[Tensor, "T ..."], Bool[np.ndarray, " T"]]
"""Examples, one a second, and which hold more than noise."""


def takes(sources: Sources, front_end: FrontEnd, seed: int = 0) -> Iterator[Take]:
    """Every recording of the training split TAKES times, and noise among them. Deterministic by seed."""
    composer = Composer(sources, "train", ComposerConfig(size=GRID, seconds=SECONDS))
    recordings = [(kind, ref) for kind in sources.categories for ref in sources.sounds("train", kind)]
    for number in range(TAKES * len(recordings)):
        rng = np.random.default_rng([seed, number])
        kind, ref = recordings[number % len(recordings)]
        waveform, sounding = composer.voice(some_voice(kind, ref, _span(rng), rng), rng)
        yield front_end.examples(waveform, SECONDS), sounding
        for share, make in ((NOISY, noise), (HUSHED, hush)):
            if rng.random() < share:
                yield front_end.examples(make(SECONDS * AUDIO_RATE, rng), SECONDS), np.zeros(SECONDS, bool)


def fit_activity(audio_encoder: nn.Module, sounds: Iterable[Take], device: str = "cpu") -> Activity | None:
    """A logistic regression in which both kinds of seconds count as much; None where one of them is missing.

    `device` is that of the encoder, and then of what is fitted.
    """
    embeddings: list[Tensor] = []
    active: list[Bool[np.ndarray, " T"]] = []
    for examples, told in sounds:
        with torch.inference_mode():
            embeddings.append(audio_encoder(examples.to(device)).float().cpu())
        active.append(told)
    truth = np.concatenate(active) if active else np.zeros(0, bool)
    if truth.all() or not truth.any():
        return None
    fitted = Activity(embeddings[0].shape[-1])
    x = fitted.norm(torch.cat(embeddings)).numpy()
    curve = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000).fit(x, truth)
    with torch.no_grad():
        fitted.score.weight.copy_(torch.from_numpy(curve.coef_))
        fitted.score.bias.copy_(torch.from_numpy(curve.intercept_))
    return fitted.to(device)


def _span(rng: np.random.Generator) -> tuple[float, float]:
    """All of the take, every second time; else a part of it."""
    if rng.random() < 0.5:
        return 0.0, float(SECONDS)
    start = rng.uniform(0, SECONDS - SHORTEST)
    return float(start), float(rng.uniform(start + SHORTEST, SECONDS))
