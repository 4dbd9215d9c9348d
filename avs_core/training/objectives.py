"""What is minimised, one value a setting. Each gives named terms whose sum is the loss.

    S4      BCE on the labelled frame of each clip, λ = 0                                      (paper 1, section 4.3)
    MS3     BCE on the labelled frames + 0.5 · L_AVM                                           (paper 1, section 4.3)
    AVSS    cross entropy over the classes on the labelled frames + 0.5 · L_AVM     (the published training code)
    light   ours: BCE + soft Dice + what the two heads get wrong, L_AVM on request

Masks and labels of seconds without a label enter no loss. L_AVM needs none: it looks at predicted masks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from avs_core.errors import ConfigError
from avs_core.losses import MS3_WEIGHT, PUBLISHED_FRAMES, avm_av, avm_semantic, avm_vv, bce_ms3, pixel_cross_entropy
from avs_core.models.tpavi import TPAVIOutput
from avs_core.models.two_stage import TwoStageOutput
from avs_core.training.data import Batch
from avs_core.training.network import Answer

DICE_SMOOTH = 1.0
PUBLISHED_CLIPS = 4

Variant = Literal["av", "vv"]
_AVM: Mapping[Variant, Callable[..., Tensor]] = {"av": avm_av, "vv": avm_vv}


@runtime_checkable
class Objective(Protocol):
    """From what a trainee said to what it should have said."""

    @property
    def crosses(self) -> bool:
        """Whether a term pairs the clips of a batch with each other: of a batch in parts it would see other pairs."""

    def __call__(self, answer: Answer, batch: Batch) -> dict[str, Tensor]:
        """Named terms; their sum is minimised."""


@dataclass(frozen=True)
class Agreement:
    """L_AVM with its weight.

    frames  the published L_AVM is a sum over the frames of a batch, 4 clips of 5. A share of a batch, in one of several
            processes, is scaled to that many frames, so that the mean over the processes is the sum over the batch.
            (AVM-VV looks for the nearest sound within the share: there more processes see fewer neighbours.)
    """

    variant: Variant = "av"
    weight: float = MS3_WEIGHT
    frames: int = PUBLISHED_CLIPS * PUBLISHED_FRAMES

    @property
    def crosses(self) -> bool:
        """AVM-VV pairs the frames that sound alike."""
        return self.variant == "vv"

    def __call__(self, masks: TPAVIOutput) -> Float[Tensor, ""]:
        """weight · L_AVM of what the net saw and heard. Raises ConfigError for a net that does not hear."""
        visual = [Z.float() for Z in masks.visual]
        audio = [a if a is None else a.float() for a in masks.audio]
        divergence = _AVM[self.variant](masks.logits.float(), visual, audio)
        return self.weight * self.frames / masks.logits.shape[:2].numel() * divergence


@dataclass(frozen=True)
class S4Objective:
    """BCE on the one labelled frame."""

    crosses = False

    def __call__(self, answer: Answer, batch: Batch) -> dict[str, Tensor]:
        """{"bce"}."""
        return {"bce": labelled_bce(_masks(answer).logits, batch)}


@dataclass(frozen=True)
class MS3Objective:
    """BCE on the labelled frames + L_AVM."""

    agreement: Agreement = Agreement()

    @property
    def crosses(self) -> bool:
        """See Objective."""
        return self.agreement.crosses

    def __call__(self, answer: Answer, batch: Batch) -> dict[str, Tensor]:
        """{"bce", "avm"}."""
        masks = _masks(answer)
        return {"bce": labelled_bce(masks.logits, batch), "avm": self.agreement(masks)}


@dataclass(frozen=True)
class AVSSObjective:
    """Cross entropy over the classes + L_AVM of everything that is not background, as the published code has it."""

    weight: float = MS3_WEIGHT
    crosses = False

    def __call__(self, answer: Answer, batch: Batch) -> dict[str, Tensor]:
        """{"ce", "avm"}. Raises ConfigError for a batch or a net without classes."""
        masks = _masks(answer)
        logits = masks.logits.float()
        if batch.labels is None or logits.ndim != 5:
            raise ConfigError("AVSS needs classes in the data and in the net; open the data with kind avss")
        ce = pixel_cross_entropy(logits[batch.labelled], batch.labels[batch.labelled])
        avm = avm_semantic(logits, [Z.float() for Z in masks.visual], masks.audio, batch.labelled)
        return {"ce": ce, "avm": self.weight * avm}


@dataclass(frozen=True)
class LightObjective:
    """Ours: BCE + `dice` · soft Dice of the masks, and what the two heads get wrong.

    naming     weight of the BCE of what is heard; viewing  of the cross entropy of what is seen
    agreement  L_AVM; None = without
    """

    dice: float = 1.0
    naming: float = 0.5
    viewing: float = 1.0
    agreement: Agreement | None = None

    @property
    def crosses(self) -> bool:
        """See Objective."""
        return self.agreement is not None and self.agreement.crosses

    def __call__(self, answer: Answer, batch: Batch) -> dict[str, Tensor]:
        """{"bce", "dice"}, "naming" and "viewing" where the data say what is heard and seen, "avm" on request."""
        logits = _logits(answer).float()
        terms = {
            "bce": labelled_bce(logits, batch),
            "dice": self.dice * soft_dice(logits[batch.labelled], batch.masks[batch.labelled].float()),
        }
        if answer.named is not None and batch.heard is not None:
            terms["naming"] = self.naming * naming_loss(answer.named.float(), batch)
        if answer.shown is not None and batch.things is not None:
            terms["viewing"] = self.viewing * viewing_loss(answer.shown.float(), batch.things)
        if self.agreement is not None:
            terms["avm"] = self.agreement(_masks(answer))
        return terms


@dataclass(frozen=True)
class SoundObjective:
    """The audio encoder alone: what is heard."""

    crosses = False

    def __call__(self, answer: Answer, batch: Batch) -> dict[str, Tensor]:
        """{"naming"}."""
        assert answer.named is not None, "the recipe gives this trainee its heads"
        return {"naming": naming_loss(answer.named.float(), batch)}


def _masks(answer: Answer) -> TPAVIOutput:
    assert isinstance(answer.masks, TPAVIOutput), "TPAVI's trainee was given frames"
    return answer.masks


def _logits(answer: Answer) -> Float[Tensor, "B T H W"]:
    assert isinstance(answer.masks, TPAVIOutput | TwoStageOutput), "a net of paper 1 was given frames"
    return answer.masks.logits


def labelled_bce(logits: Float[Tensor, "B T H W"], batch: Batch) -> Float[Tensor, ""]:
    """BCE over every pixel of every labelled frame; NaN where there is none, which stops the loop."""
    return bce_ms3(logits[batch.labelled].float(), batch.masks[batch.labelled])


def naming_loss(named: Float[Tensor, "B T K"], batch: Batch) -> Float[Tensor, ""]:
    """BCE summed over the categories, meaned over the seconds. Raises ConfigError where nobody says what is heard.

    Of what may be heard or not nothing is asked.
    """
    if batch.heard is None:
        raise ConfigError("the audio encoder learns from what is heard, and this data set does not say: use composites")
    loss = F.binary_cross_entropy_with_logits(named, batch.heard.float(), reduction="none")
    if batch.unsure is not None:
        loss = loss.masked_fill(batch.unsure, 0.0)
    return loss.sum(-1).mean()


def viewing_loss(shown: Float[Tensor, "B T K1 h w"], things: Int64[Tensor, "B T y x"]) -> Float[Tensor, ""]:
    """Cross entropy of what is seen; where the truth has finer cells the logits are interpolated."""
    logits = F.interpolate(shown.flatten(0, 1), things.shape[-2:], mode="bilinear", align_corners=False)
    return pixel_cross_entropy(logits, things.flatten(0, 1))


def soft_dice(logits: Float[Tensor, "*N H W"], target: Float[Tensor, "*N H W"]) -> Float[Tensor, ""]:
    """1 − 2 Σ p·y / (Σ p + Σ y), mean over the frames that have a target: BCE alone says too little of small ones."""
    probability = torch.sigmoid(logits)
    both, total = (probability * target).sum((-2, -1)), (probability + target).sum((-2, -1))
    dice = 1 - (2 * both + DICE_SMOOTH) / (total + DICE_SMOOTH)
    sounding = target.flatten(-2).any(-1)
    return (dice * sounding).sum() / sounding.sum().clamp(min=1)
