"""What is measured: something that answers frames and sound with logits."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from avs_core.audio import LOG_MEL, Alignment, FrontEnd
from avs_core.errors import ConfigError, NonFiniteOutput
from avs_core.evaluation.instances import Find, FrameObjects
from avs_core.models.audio_encoders import find_audio_encoder
from avs_core.models.bundle import Bundle, Net
from avs_core.models.calibration import Calibration
from avs_core.models.instance_aware import InstanceAwareNet
from avs_core.models.normalisation import Normalisation
from avs_core.models.segmenter import enlarged, objects

Predict = Callable[[UInt8[Tensor, "1 T H W 3"], Float32[Tensor, "1 T ..."]], Float[Tensor, "1 T *K H W"]]
"""Logits of one window, on the CPU, from its frames and the examples of its sound; K where there are classes."""


@dataclass(frozen=True)
class Candidate:
    """A model under test.

    size, alignment, window_s  side of its frames (pixels), where it takes its sound, how many seconds it sees together
    threshold                  on the probability, above which it says that a pixel sounds
    find, categories           its objects and what it may call them; None and () for a model that tells none apart
    front_end                  what its audio encoder is fed
    """

    name: str
    predict: Predict
    size: int
    alignment: Alignment
    window_s: int
    threshold: float = 0.5
    find: Find | None = None
    categories: tuple[str, ...] = ()
    front_end: FrontEnd = LOG_MEL

    def __post_init__(self) -> None:
        if self.size < 1 or self.window_s < 1 or not 0 < self.threshold < 1:
            raise ConfigError(f"size and window_s must be >= 1 and the threshold within (0, 1), got {self}")

    @torch.inference_mode()
    def logits(
        self, frames: UInt8[np.ndarray, "T H W 3"], sound: Float32[Tensor, "T ..."]
    ) -> Float[Tensor, "T *K H W"]:
        """Of one clip, window by window, each in a forward pass of its own: no batch changes a number.

        Raises NonFiniteOutput for NaN or infinity.
        """
        logits = torch.cat([self.predict(*window)[0] for window in self._windows(frames, sound)])
        if not bool(torch.isfinite(logits).all()):
            raise NonFiniteOutput(f"logits must be finite, those of {self.name} are not: check its weights")
        return logits

    @torch.inference_mode()
    def objects(
        self, frames: UInt8[np.ndarray, "T H W 3"], sound: Float32[Tensor, "T ..."]
    ) -> list[FrameObjects] | None:
        """Of each frame of one clip; None for a model that tells no objects apart."""
        if self.find is None:
            return None
        return [one for window in self._windows(frames, sound) for one in self.find(*window)]

    def _windows(
        self, frames: UInt8[np.ndarray, "T H W 3"], sound: Float32[Tensor, "T ..."]
    ) -> Iterator[tuple[UInt8[Tensor, "1 t H W 3"], Float32[Tensor, "1 t ..."]]]:
        seen = torch.from_numpy(frames)
        for first in range(0, len(seen), self.window_s):
            at = slice(first, first + self.window_s)
            yield seen[None, at], sound[None, at]


class Glances:
    """Looks at pictures once: a clip is asked about under nine sounds, and what is seen does not depend on them."""

    def __init__(self, net: Net) -> None:
        self._net, self._seen = net, deque[tuple[Tensor, Any]](maxlen=4)

    def __call__(self, frames: UInt8[Tensor, "1 T H W 3"], normalise: Normalisation) -> Any:
        """What `listen` of this net takes."""
        for known, seen in self._seen:
            if torch.equal(known, frames):
                return seen
        seen = self._net.look(normalise(frames))
        self._seen.append((frames, seen))
        return seen


def answering(net: Net, audio_encoder: nn.Module, normalise: Normalisation, device: str = "auto") -> Predict:
    """How two networks in eval mode answer; `device` "auto" takes a GPU where there is one. Moves the networks."""
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    glances = Glances(net.to(chosen))
    audio_encoder = audio_encoder.to(chosen)

    def predict(frames: UInt8[Tensor, "1 T H W 3"], sound: Float32[Tensor, "1 T ..."]) -> Float[Tensor, "1 T *K H W"]:
        # A GPU may round float32 products to 19 bits and choose algorithms by speed; figures must not depend on it.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            audio = audio_encoder(sound[0].to(chosen))[None]
            logits: Tensor = net.listen(glances(frames.to(chosen), normalise), audio).logits
        return logits.cpu()

    return predict


def finding(
    net: InstanceAwareNet,
    audio_encoder: nn.Module,
    normalise: Normalisation,
    device: str = "auto",
    calibration: Calibration | None = None,
) -> Find:
    """The objects that an instance-aware net in eval mode sees and hears. Arguments as in `answering`.

    calibration  of the sounding scores; None = as the net gives them
    """
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    net, audio_encoder = net.to(chosen), audio_encoder.to(chosen)

    def find(frames: UInt8[Tensor, "1 T H W 3"], sound: Float32[Tensor, "1 T ..."]) -> list[FrameObjects]:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            answer = net(normalise(frames.to(chosen)), audio_encoder(sound[0].to(chosen))[None])
        seen, sounding = answer.sight.proposals, answer.sounding[0]
        sounding = sounding if calibration is None else calibration(sounding)
        return [
            _objects(seen.probabilities[0, t], seen.masks[0, t], sounding[t], frames.shape[2:4])
            for t in range(frames.shape[1])
        ]

    return find


def _objects(
    p: Float[Tensor, "N K"], masks: Float[Tensor, "N h w"], sounding: Float[Tensor, " N"], size: torch.Size
) -> FrameObjects:
    """What is more likely something than nothing, under any sound; an archive has also what is lit though unsure."""
    kept = objects(p, masks)
    lit = enlarged(masks[kept], (size[0], size[1])) > 0 if len(kept) else torch.zeros(0, *size, dtype=torch.bool)
    return FrameObjects(lit.cpu(), p[kept].cpu(), sounding[kept].cpu())


def bundle_candidate(bundle: Bundle, device: str = "auto", threshold: float | None = None) -> Candidate:
    """A bundle under test; `device` "auto" takes a GPU where there is one. Moves the networks."""
    config = bundle.config
    normalise, find = Normalisation(config.mean, config.std), None
    predict = answering(bundle.net, bundle.audio_encoder, normalise, device)
    if isinstance(bundle.net, InstanceAwareNet):
        find = finding(bundle.net, bundle.audio_encoder, normalise, device, config.calibration)
    return Candidate(
        config.name,
        predict,
        config.size,
        config.alignment,
        config.window_s,
        config.threshold if threshold is None else threshold,
        find,
        bundle.categories,
        find_audio_encoder(config.audio_encoder).front_end,
    )


def sounding_logits(logits: Float[Tensor, "T *K H W"]) -> Float[Tensor, "T H W"]:
    """One logit a pixel: that it sounds. Of K classes (0 = background): log of all other odds against the first."""
    if logits.ndim == 3:
        return logits
    return logits[:, 1:].logsumexp(1) - logits[:, 0]
