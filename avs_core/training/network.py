"""What is trained together: the segmentation net, the audio encoder, and a head that names what is heard."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from avs_core.losses import bce_ms3
from avs_core.models.tpavi import TPAVINet, TPAVIOutput
from avs_core.training.data import Batch

DICE_SMOOTH = 1.0
RARE = -4.0
"""Logit of a category before anything is heard: about one in 60."""

VIEWED = 2
"""The level of the neck that `viewer` reads: its cells are GRID pixels wide."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per RGB channel, of values in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, frames: UInt8[Tensor, "B T H W 3"]) -> Float32[Tensor, "B T 3 H W"]:
        """uint8 RGB → what the backbone was trained on."""
        mean, std = (torch.tensor(values, device=frames.device) * 255 for values in (self.mean, self.std))
        return rearrange((frames.float() - mean) / std, "B T H W c -> B T c H W")


@dataclass(frozen=True)
class Answer:
    """What a trainee says of B clips of T seconds, K categories.

    masks  the net's output
    named  logits of the categories that are heard
    shown  logits of the category in each cell of the picture, before the net has heard anything; the last is "none"
    """

    masks: TPAVIOutput
    named: Float[Tensor, "B T K"]
    shown: Float[Tensor, "B T K1 h w"]


class Trainee(nn.Module):
    """Net and audio encoder. `namer` and `viewer` are dropped after training.

    Two heads keep sight and hearing comparable: `namer` reads categories from the audio vector, `viewer` from the
    third level of the neck, which is what TPAVI compares with it. The backbone is frozen: a few images a class would
    only narrow what ImageNet taught it, and a step without its backward pass costs half.
    """

    def __init__(self, net: TPAVINet, audio_encoder: nn.Module, categories: int, normalise: Normalisation) -> None:
        super().__init__()
        self.net, self.audio_encoder, self.normalise = net, audio_encoder, normalise
        self.namer = nn.Linear(net.config.audio_channels, categories)
        nn.init.constant_(self.namer.bias, RARE)
        self.viewer = nn.Conv2d(net.config.channels, categories + 1, 1)
        self._seen: list[Tensor] = []
        # PyTorch 2.11 on CPUs: the bfloat16 weight gradient of a dilated convolution of 24 channels-last maps is NaN.
        for level in net.neck:
            level.register_forward_pre_hook(lambda _module, inputs: tuple(x.contiguous() for x in inputs))
        net.neck[VIEWED].register_forward_hook(lambda _module, _input, level: self._seen.append(level))
        net.backbone.requires_grad_(False)

    def embed(self, log_mel: Float[Tensor, "B T 1 96 64"]) -> Float[Tensor, "B T A"]:
        """One audio vector a second."""
        embedding: Tensor = self.audio_encoder(rearrange(log_mel, "B T c m f -> (B T) c m f"))
        return rearrange(embedding, "(B T) A -> B T A", B=len(log_mel))

    def forward(self, frames: UInt8[Tensor, "B T H W 3"], log_mel: Float[Tensor, "B T 1 96 64"]) -> Answer:
        """Masks, and what the two heads say."""
        audio = self.embed(log_mel)
        masks = self.net(self.normalise(frames), audio)
        shown = rearrange(self.viewer(self._seen.pop()), "(B T) K h w -> B T K h w", B=len(frames))
        return Answer(masks, self.namer(audio), shown)

    def train(self, mode: bool = True) -> "Trainee":
        """The backbone keeps the statistics of ImageNet: ten frames a batch are too few to estimate others."""
        super().train(mode)
        self.net.backbone.eval()
        return self


@dataclass(frozen=True)
class Objective:
    """What is minimised: BCE + `dice` · soft Dice of the masks, and what the two heads get wrong.

    naming   weight of the BCE of what is heard; viewing  of the cross entropy of what is seen
    bf16     compute in bfloat16 where autocast thinks it safe; the weights stay float32
    """

    dice: float = 1.0
    naming: float = 0.5
    viewing: float = 1.0
    bf16: bool = True

    def masks(self, trainee: Trainee, batch: Batch) -> dict[str, Tensor]:
        """The terms of the joint training; their sum is minimised."""
        with self._numbers(batch):
            answer = trainee(batch.frames, batch.log_mel)
        logits, target = answer.masks.logits.float(), batch.masks.float()
        return {
            "bce": bce_ms3(logits, target),
            "dice": self.dice * soft_dice(logits, target),
            "naming": self.naming * naming_loss(answer.named.float(), batch),
            "viewing": self.viewing * F.cross_entropy(answer.shown.float().flatten(0, 1), batch.things.flatten(0, 1)),
        }

    def sounds(self, trainee: Trainee, batch: Batch) -> dict[str, Tensor]:
        """The term of the audio encoder's own training."""
        with self._numbers(batch):
            named = trainee.namer(trainee.embed(batch.log_mel))
        return {"naming": naming_loss(named.float(), batch)}

    def _numbers(self, batch: Batch) -> torch.autocast:
        return torch.autocast(batch.frames.device.type, torch.bfloat16, enabled=self.bf16)


def naming_loss(named: Float[Tensor, "B T K"], batch: Batch) -> Float[Tensor, ""]:
    """BCE summed over the categories, meaned over the seconds."""
    return F.binary_cross_entropy_with_logits(named, batch.heard.float(), reduction="none").sum(-1).mean()


def soft_dice(logits: Float[Tensor, "B T H W"], target: Float[Tensor, "B T H W"]) -> Float[Tensor, ""]:
    """1 − 2 Σ p·y / (Σ p + Σ y), mean over the frames that have a target: BCE alone says too little of small ones."""
    probability = torch.sigmoid(logits)
    both, total = (probability * target).sum((2, 3)), (probability + target).sum((2, 3))
    dice = 1 - (2 * both + DICE_SMOOTH) / (total + DICE_SMOOTH)
    sounding = target.flatten(2).any(2)
    return (dice * sounding).sum() / sounding.sum().clamp(min=1)
