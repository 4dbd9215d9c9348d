"""What is trained together: a segmentation net, an audio encoder, and for those of paper 1 heads that name things."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from avs_core.models.bundle import Net
from avs_core.models.instance_aware import InstanceAwareOutput
from avs_core.models.normalisation import Normalisation as Normalisation  # what a trainee is made of
from avs_core.models.tpavi import Levels, TPAVINet, TPAVIOutput
from avs_core.models.two_stage import Regions, TwoStageNet, TwoStageOutput

RARE = -4.0
"""Logit of a category before anything is heard: about one in 60."""

VIEWED = 2
"""The level of the neck that `viewer` reads: its cells are GRID pixels wide, or 2 · GRID for `finest` 8."""

Part = Literal["backbone", "audio_encoder"]


@dataclass(frozen=True)
class Answer:
    """What a trainee says of B clips of T seconds, K categories.

    masks  the net's output, or that of a detector that is trained alone; None where there was nothing to see
    named  logits of the categories that are heard; None without heads
    shown  logits of the category in each cell of the picture, before the net has heard anything; the last is "none";
           None without heads
    """

    masks: TPAVIOutput | InstanceAwareOutput | TwoStageOutput | Regions | None
    named: Float[Tensor, "B T K"] | None = None
    shown: Float[Tensor, "B T K1 h w"] | None = None


class Trainee(nn.Module):
    """Net and audio encoder. What is frozen neither learns nor updates its statistics."""

    def __init__(
        self, net: Net, audio_encoder: nn.Module, normalise: Normalisation, frozen: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.net: Net = net
        self.audio_encoder, self.normalise, self._frozen = audio_encoder, normalise, tuple(frozen)
        for module in self._frozen:
            module.requires_grad_(False)

    @property
    def device(self) -> str:
        """Where its weights are."""
        return str(next(self.parameters()).device)

    def forward(self, frames: UInt8[Tensor, "B T H W 3"] | None, sound: Float[Tensor, "B T ..."]) -> Answer:
        """Masks of these frames under this sound; without frames what is heard."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Trainee":
        """What is frozen stays in eval mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


class NamingTrainee(Trainee):
    """A net with a neck and its audio encoder, and with `categories` two heads that are dropped after training.

    The heads keep sight and hearing comparable: `namer` reads categories from the audio vector, `viewer` from the
    third level of the neck, which is what the net joins with it.
    """

    net: TPAVINet | TwoStageNet

    def __init__(
        self,
        net: TPAVINet | TwoStageNet,
        audio_encoder: nn.Module,
        normalise: Normalisation,
        categories: int | None,
        frozen: Sequence[nn.Module],
    ) -> None:
        super().__init__(net, audio_encoder, normalise, frozen)
        self.namer = None if categories is None else new_namer(net.config.audio_channels, categories)
        self.viewer = None if categories is None else nn.Conv2d(net.config.channels, categories + 1, 1)
        # PyTorch 2.11 on CPUs: the bfloat16 weight gradient of a dilated convolution of 24 channels-last maps is NaN.
        for level in net.neck:
            level.register_forward_pre_hook(lambda _module, inputs: tuple(x.contiguous() for x in inputs))

    def forward(self, frames: UInt8[Tensor, "B T H W 3"] | None, sound: Float[Tensor, "B T ..."]) -> Answer:
        """Masks, and what the two heads say; without frames only what is heard."""
        audio = embed(self.audio_encoder, sound)
        if frames is None:
            return Answer(None, None if self.namer is None else self.namer(audio))
        masks, levels = self._masks(self.normalise(frames), audio)
        if self.namer is None or self.viewer is None:
            return Answer(masks)
        cells = self.viewer(levels[VIEWED].flatten(0, 1))
        return Answer(masks, self.namer(audio), rearrange(cells, "(B T) K h w -> B T K h w", B=len(frames)))

    def _masks(
        self, frames: Float[Tensor, "B T 3 H W"], audio: Float[Tensor, "B T A"]
    ) -> tuple[TPAVIOutput | TwoStageOutput, Levels]:
        """What the net says, and the levels of its neck before it has heard anything."""
        raise NotImplementedError


class TPAVITrainee(NamingTrainee):
    """TPAVI.

    Ours freeze the backbone: a few images a class would only narrow what ImageNet taught it, and a step without its
    backward pass costs half. The published runs freeze the audio encoder.
    """

    net: TPAVINet

    def __init__(
        self,
        net: TPAVINet,
        audio_encoder: nn.Module,
        normalise: Normalisation,
        categories: int | None,
        frozen: Part = "backbone",
    ) -> None:
        still = net.backbone if frozen == "backbone" else audio_encoder
        super().__init__(net, audio_encoder, normalise, categories, [still])

    def _masks(self, frames: Float[Tensor, "B T 3 H W"], audio: Float[Tensor, "B T A"]) -> tuple[TPAVIOutput, Levels]:
        levels = self.net.look(frames)
        return self.net.listen(levels, audio), levels


def new_namer(channels: int, categories: int) -> nn.Linear:
    """Audio vector → logit of each category, which starts at the prior."""
    namer = nn.Linear(channels, categories)
    nn.init.constant_(namer.bias, RARE)
    return namer


def embed(audio_encoder: nn.Module, sound: Float[Tensor, "B T ..."]) -> Float[Tensor, "B T A"]:
    """One audio vector a second."""
    embedding: Tensor = audio_encoder(sound.flatten(0, 1))
    return rearrange(embedding, "(B T) A -> B T A", B=len(sound))
