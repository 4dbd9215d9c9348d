"""TPAVI: temporal pixel-wise audio-visual interaction, and the segmentation net built on it.

Zhou et al., "Audio-Visual Segmentation", ECCV 2022, arXiv 2207.05042.

    B clips, T frames, C channels, D inner channels, H×W positions, N = T·H·W, K classes

For each of four feature maps V (after the ASPP neck) and the audio vectors A of the same clip

    Â = W_a A                                    aligned audio, one vector a frame
    α = θ(V) φ(Â)ᵀ / N                           Â repeated over H×W; no softmax
    Z = LN(V + BN(W_z(α g(V))))

Written out, α is N×N. But φ(Â) is the same at each position of a frame, so with φ_t the vector of frame t

    (α g)_p = (1/T) Σ_t (θ_p · φ_t) ḡ_t,         ḡ_t = mean over the positions of frame t of g

which has rank T. θ, g and W_z are affine, so they act on T vectors instead of N positions:

    θ_p · φ_t = V_p · (θᵀφ_t) + b_θ · φ_t,       W_z ḡ_t = W_z (g V̄_t + b_g)

O(N·T·C) time, no N×N matrix, any T, any H×W. Exact up to rounding.

The paper's ablation "A ⊕ V" puts a plain addition in its place: Z = V + Â.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from avs_core.models.backbones import (
    STRIDES,
    BackboneName,
    Finest,
    build_backbone,
    require_whole_cells,
    strides_from,
)

ASPP_DILATIONS = (3, 6, 12, 18)
HEAD_CHANNELS = 32


class TPAVIConfig(BaseModel):
    """What a TPAVINet is made of. The defaults, with a published backbone, are the published model.

    channels     C of the neck, the TPAVI blocks and the decoder
    inner        D of the TPAVI blocks
    stages       which of the four maps (0 = the finest) meet the audio; () = a net that cannot hear
    finest       stride of the finest map, see Backbone; at 8 the logits are made at half the size and doubled
    fusion       how they meet it: TPAVI, or the addition that the paper compares it with
    audio_bias   whether the audio alignment has a bias (the AVSS checkpoints have none)
    classes      1 = one logit a pixel; K > 1 = semantic logits
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneName
    channels: int = Field(default=256, ge=2, multiple_of=2)
    inner: int = Field(default=128, ge=1)
    audio_channels: int = Field(default=128, ge=1)
    stages: tuple[int, ...] = (0, 1, 2, 3)
    fusion: Literal["tpavi", "add"] = "tpavi"
    finest: Finest = 4
    audio_bias: bool = True
    classes: int = Field(default=1, ge=1)

    @field_validator("stages")
    @classmethod
    def _known_stages(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        if list(stages) != sorted(set(stages) & set(range(len(STRIDES)))):
            raise ValueError(f"stages must be distinct, ascending and within 0..3, got {stages}")
        return stages

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """Of the four maps, in pixels."""
        return strides_from(self.finest)


class TPAVI(nn.Module):
    """One audio-visual interaction, in the folded form of the module docstring."""

    def __init__(self, channels: int, audio_channels: int, inner: int | None = None, audio_bias: bool = True) -> None:
        """`inner` defaults to half of `channels`, as published."""
        super().__init__()
        D = inner or channels // 2
        self.align = nn.Linear(audio_channels, channels, bias=audio_bias)
        self.theta = nn.Linear(channels, D)
        self.phi = nn.Linear(channels, D)
        self.g = nn.Linear(channels, D)
        self.W_z = nn.Linear(D, channels)
        self.bn = nn.BatchNorm2d(channels)
        self.norm = nn.LayerNorm(channels)
        # The block starts as LN(V): the audio path opens during training.
        nn.init.zeros_(self.bn.weight)
        nn.init.zeros_(self.bn.bias)

    def forward(
        self, visual: Float[Tensor, "B T C H W"], audio: Float[Tensor, "B T A"]
    ) -> tuple[Float[Tensor, "B T C H W"], Float[Tensor, "B T C"]]:
        """→ Z and the aligned audio Â."""
        B, T, _, H, W = visual.shape
        V = visual.flatten(3)
        aligned = self.align(audio)
        phi = self.phi(aligned)
        queries = phi @ self.theta.weight
        values = F.linear(self.g(V.mean(dim=3)), self.W_z.weight)

        # similarity[b, t, u, p] = θ_p · φ_u for the positions p of frame t
        similarity = queries[:, None] @ V + (phi @ self.theta.bias)[:, None, :, None]
        attended = values.mT[:, None] @ (similarity / T) + self.W_z.bias[:, None]
        attended = self.bn(rearrange(attended, "B T C (H W) -> (B T) C H W", H=H, W=W))
        Z = self.norm(rearrange(visual + attended.unflatten(0, (B, T)), "B T C H W -> B T H W C"))
        return rearrange(Z, "B T H W C -> B T C H W"), aligned


class Addition(nn.Module):
    """The ablation of TPAVI: the aligned audio of a frame is added to each of its positions, Z = V + Â."""

    def __init__(self, channels: int, audio_channels: int, audio_bias: bool = True) -> None:
        super().__init__()
        self.align = nn.Linear(audio_channels, channels, bias=audio_bias)

    def forward(
        self, visual: Float[Tensor, "B T C H W"], audio: Float[Tensor, "B T A"]
    ) -> tuple[Float[Tensor, "B T C H W"], Float[Tensor, "B T C"]]:
        """→ Z and the aligned audio Â."""
        aligned: Tensor = self.align(audio)
        return visual + aligned[..., None, None], aligned


class ASPP(nn.Module):
    """The neck of one level: parallel dilated 3×3 convolutions, summed; no norm, no activation."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(in_channels, channels, 3, padding=d, dilation=d) for d in ASPP_DILATIONS
        )

    def forward(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N C H W"]:
        """Sum of the branches."""
        total: Tensor = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        return total


class ResidualConvUnit(nn.Module):
    """y = relu(x); conv2(relu(conv1(y))) + y. The residual is rectified: the published ReLU works in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Same shape out."""
        y = F.relu(x)
        out: Tensor = self.conv2(F.relu(self.conv1(y))) + y
        return out


class FusionBlock(nn.Module):
    """One step up the pyramid: RCU2(x + RCU1(skip)), then twice the size. The coarsest level has no skip."""

    def __init__(self, channels: int, has_skip: bool) -> None:
        super().__init__()
        self.rcu1 = ResidualConvUnit(channels) if has_skip else None
        self.rcu2 = ResidualConvUnit(channels)

    def forward(
        self, x: Float[Tensor, "N C H W"], skip: Float[Tensor, "N C H W"] | None = None
    ) -> Float[Tensor, "N C 2*H 2*W"]:
        """`skip` is the finer level's Z, at the size of x."""
        if self.rcu1 is not None:
            x = x + self.rcu1(skip)
        return F.interpolate(self.rcu2(x), scale_factor=2, mode="bilinear", align_corners=True)


@dataclass(frozen=True)
class TPAVIOutput:
    """What the net says, and what its regularisation looks at.

    logits   (B, T, H, W) for one class, (B, T, K, H, W) for K
    visual   relu(Z) of the four levels (B, T, C, H / s, W / s), s = 4, 8, 16, 32, or twice these for `finest` 8
    audio    the aligned audio of the four levels, None where a level doesn't hear
    """

    logits: Float[Tensor, "B T *K H W"]
    visual: tuple[Float[Tensor, "B T C _ _"], ...]
    audio: tuple[Float[Tensor, "B T C"] | None, ...]


Levels = tuple[Float[Tensor, "B T C _ _"], ...]
"""Four maps of the neck, finest first."""


class TPAVINet(nn.Module):
    """Encoder, neck, TPAVI (or what stands in its place) at the chosen levels, panoptic-FPN-style decoder, head."""

    def __init__(self, config: TPAVIConfig, pretrained: bool = False) -> None:
        """`pretrained` fetches ImageNet weights for the backbone; all else starts at PyTorch's defaults."""
        super().__init__()
        C = config.channels
        self.config = config
        self.backbone = build_backbone(config.backbone, pretrained, config.finest)
        self.neck = nn.ModuleList(ASPP(channels, C) for channels in self.backbone.channels)
        self.tpavi = nn.ModuleDict({str(i): _fusion(config) for i in config.stages})
        self.decoder, self.head = new_decoder(C), new_head(C, config.classes)

    def forward(self, frames: Float[Tensor, "B T 3 H W"], audio: Float[Tensor, "B T A"]) -> TPAVIOutput:
        """`frames` are normalised RGB, `audio` one embedding a frame. Raises ConfigError, see `look`."""
        return self.listen(self.look(frames), audio)

    def look(self, frames: Float[Tensor, "B T 3 H W"]) -> Levels:
        """The four levels of the neck, which no sound has reached: one look serves several sounds.

        Raises ConfigError when H or W is not a multiple of the coarsest stride (32, or 64 for `finest` 8).
        """
        B, _, _, H, W = frames.shape
        require_whole_cells(H, W, self.config.strides[-1])
        maps = self.backbone(rearrange(frames, "B T c H W -> (B T) c H W"))
        return tuple(
            rearrange(neck(x), "(B T) C H W -> B T C H W", B=B) for neck, x in zip(self.neck, maps, strict=True)
        )

    def listen(self, seen: Levels, audio: Float[Tensor, "B T A"]) -> TPAVIOutput:
        """What these levels answer to one embedding a frame."""
        levels = list(seen)
        heard: list[Tensor | None] = [None] * len(levels)
        for stage, block in self.tpavi.items():
            levels[int(stage)], heard[int(stage)] = block(levels[int(stage)], audio)
        fine_to_coarse = [rearrange(Z, "B T C H W -> (B T) C H W") for Z in levels]
        decoded = decode(fine_to_coarse, self.decoder, self.head, self.config.finest)
        logits = rearrange(decoded, "(B T) K H W -> B T K H W", B=len(audio))
        return TPAVIOutput(
            logits=logits.squeeze(2) if self.config.classes == 1 else logits,
            visual=tuple(F.relu(Z) for Z in levels),
            audio=tuple(heard),
        )


def new_decoder(channels: int) -> nn.ModuleList:
    """A fusion block a level, finest first."""
    coarsest = len(STRIDES) - 1
    return nn.ModuleList(FusionBlock(channels, has_skip=i != coarsest) for i in range(len(STRIDES)))


def new_head(channels: int, classes: int) -> nn.Sequential:
    """From the last fusion block to logits, at twice the size."""
    return nn.Sequential(
        nn.Conv2d(channels, channels // 2, 3, padding=1),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        nn.Conv2d(channels // 2, HEAD_CHANNELS, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(HEAD_CHANNELS, classes, 1),
    )


def decode(
    levels: Sequence[Float[Tensor, "N C _ _"]], decoder: nn.ModuleList, head: nn.Module, finest: Finest
) -> Float[Tensor, "N K H W"]:
    """From the coarsest level to the finest, then the head; `levels` come finest first."""
    x = decoder[-1](levels[-1])
    for block, skip in zip(decoder[-2::-1], levels[-2::-1], strict=True):
        x = block(x, skip)
    logits: Tensor = head(x)
    if finest != STRIDES[0]:
        logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
    return logits


def _fusion(config: TPAVIConfig) -> TPAVI | Addition:
    if config.fusion == "add":
        return Addition(config.channels, config.audio_channels, config.audio_bias)
    return TPAVI(config.channels, config.audio_channels, config.inner, config.audio_bias)
