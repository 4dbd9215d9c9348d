"""Instance-aware audio-visual segmentation: which of the things in the picture are heard.

Liu et al., "Audio-Visual Segmentation by Exploring Cross-Modal Mutual Semantics", ACM MM 2023, arXiv 2307.16620.
No code was published: this is written from the abstract, and everything marked (ours) is our own.

    B clips, T frames, N queries, K categories and ∅ = none of them, D channels, h×w positions at the finest stride

1.  Potential sounding objects. A mask network of the MaskFormer family gives N queries a frame, whether they sound or
    not: p_i over K + 1 classes and a mask m_i.                                                         (the paper's)
    Queries are picked where the picture shows something, as in FastInst (He et al., CVPR 2023): a classifier names each
    cell, and the N strongest local maxima of 1 − p(∅) become queries; masked attention refines them (Cheng et al.,
    "Masked-attention Mask Transformer", CVPR 2022).                                                            (ours)
2.  Audio. One score a category and second, a_k = sigmoid(MLP(audio)_k), which learns from masks: what is lit tells
    what is heard.                                                                                      (the paper's)
3.  Semantic correlation: the two meet in the names of the categories and nowhere else, so an object is lit only if it
    is heard. One object a category, i_k = argmax_i p_i(k) and c_k = p_{i_k}(k):

        M = 1 − Π_k (1 − a_k c_k m_{i_k})                      the paper adds masks; a noisy-or stays below 1  (ours)

    or every object, with s_i = Σ_k p_i(k) a_k its sounding score, so that two dogs are two:

        M = 1 − Π_i (1 − s_i m_i)                                                                              (ours)

    After training s_i may be weighed against the other objects, see Weighing, and multiplied by e, the probability that
    anything is heard at all, see Activity; so is a_k.                                                         (ours)

    or, to compare with, everything that is something, heard or not: s_i = 1 − p_i(∅).

Frames are seen one by one and seconds heard one by one: any T, and no second knows of a later one.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from avs_core.errors import ConfigError
from avs_core.models.activity import Activity
from avs_core.models.backbones import BackboneName, Finest, build_backbone, require_whole_cells, strides_from
from avs_core.models.correlation import Composition, Proposals, Weighing, correlate
from avs_core.models.known_names import STRIDE, KnownNames

NAMED = 1
"""The level whose cells are named and picked as queries: the second finest."""

_GROUPS = 8


class InstanceAwareConfig(BaseModel):
    """What an InstanceAwareNet is made of.

    categories  K
    queries     N, of which `learnt` are the same in every picture and the others picked from it
    channels    D of the pyramid and the queries; heads  of attention; layers  of masked attention
    hidden      width of the audio network's middle layer; dropout  share of what it reads that is left out in training
    finest      stride of the masks, see Backbone
    known       weight of what the backbone's classifier calls an object, see KnownNames; None = the net has none
    temperature of the names. Both are fitted on val after training, see `renamed`
    weighing    of what is heard, likewise; None = s_i is as in training
    activity    whether the net tells noise from what it may name, see Activity; fitted after training too
    composition whether M is made of every object, of one a category, or of all objects whatever is heard
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneName
    categories: int = Field(ge=1)
    queries: int = Field(default=16, ge=1)
    learnt: int = Field(default=4, ge=0)
    channels: int = Field(default=128, ge=8, multiple_of=8)
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=3, ge=1)
    audio_channels: int = Field(default=128, ge=1)
    hidden: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    finest: Finest = 4
    known: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    weighing: Weighing | None = None
    activity: bool = False
    composition: Composition = "instances"

    @model_validator(mode="after")
    def _fits(self) -> "InstanceAwareConfig":
        if self.channels % self.heads:
            raise ValueError(f"channels must be a multiple of heads, got {self.channels} and {self.heads}")
        if self.known is not None and self.backbone != "tf_efficientnet_lite0":
            raise ValueError(f"known names are tf_efficientnet_lite0's, not {self.backbone}'s: leave them out")
        if self.learnt > self.queries:
            raise ValueError(f"at most all {self.queries} queries can be learnt, got {self.learnt}")
        return self

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """Of the pyramid, in pixels."""
        return strides_from(self.finest)


@dataclass(frozen=True)
class Sight:
    """Everything a look at the pictures gives; no sound has reached it.

    cells   logits of the category of each cell of the named level, ∅ last
    layers  the proposals before and after each layer of the decoder; the last are the answer
    """

    cells: Float[Tensor, "B T K1 y x"]
    layers: tuple[Proposals, ...]

    @property
    def proposals(self) -> Proposals:
        """After the last layer."""
        return self.layers[-1]


@dataclass(frozen=True)
class InstanceAwareOutput:
    """Masks of what sounds, and where they come from.

    logits    of M, at the size of the frames
    sight     what is in the pictures
    heard     logits of a_k where e is 1
    active    e, 1 of a net that does not tell
    sounding  s_i, in [0, 1]
    """

    logits: Float[Tensor, "B T H W"]
    sight: Sight
    heard: Float[Tensor, "B T K"]
    active: Float[Tensor, "B T"]
    sounding: Float[Tensor, "B T N"]


class InstanceAwareNet(nn.Module):
    """Backbone, pyramid, query decoder; audio network; their correlation."""

    def __init__(self, config: InstanceAwareConfig, pretrained: bool = False) -> None:
        """`pretrained` fetches ImageNet weights for the backbone; all else starts at random."""
        super().__init__()
        D, K = config.channels, config.categories
        self.config = config
        self.backbone = build_backbone(config.backbone, pretrained, config.finest)
        self.pyramid = Pyramid(self.backbone.channels, D)
        self.cells = nn.Conv2d(D, K + 1, 1)
        self.learnt = nn.Parameter(torch.randn(config.learnt, D) * 0.02)
        self.decoder = nn.ModuleList(DecoderLayer(D, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(D)
        self.classes = nn.Linear(D, K + 1)
        self.deepest = config.strides.index(STRIDE)
        self.known = None if config.known is None else KnownNames(self.backbone.channels[self.deepest], K)
        self.kernels = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D))
        self.hearing = nn.Sequential(
            nn.LayerNorm(config.audio_channels, elementwise_affine=False),
            nn.Dropout(config.dropout),
            nn.Linear(config.audio_channels, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, K),
        )
        self.activity = Activity(config.audio_channels) if config.activity else None

    def forward(self, frames: Float[Tensor, "B T 3 H W"], audio: Float[Tensor, "B T A"]) -> InstanceAwareOutput:
        """`frames` are normalised RGB, `audio` one embedding a frame. Raises ConfigError, see `look`."""
        return self.listen(self.look(frames), audio)

    def look(self, frames: Float[Tensor, "B T 3 H W"]) -> Sight:
        """What is in the pictures: one look serves several sounds.

        Raises ConfigError when H or W is not a multiple of the coarsest stride.
        """
        B, _, _, H, W = frames.shape
        require_whole_cells(H, W, self.config.strides[-1])
        maps = self.backbone(rearrange(frames, "B T c H W -> (B T) c H W"))
        levels = self.pyramid(maps)
        cells = self.cells(levels[NAMED])
        *said, (classes, masks) = self._decode(levels, self._pick(levels[NAMED], cells))
        said.append((self._renamed(classes, masks, maps[self.deepest]), masks))
        layers = (Proposals(classes.unflatten(0, (B, -1)), masks.unflatten(0, (B, -1))) for classes, masks in said)
        return Sight(cells.unflatten(0, (B, -1)), tuple(layers))

    def listen(self, sight: Sight, audio: Float[Tensor, "B T A"]) -> InstanceAwareOutput:
        """What of this is heard in one embedding a frame."""
        heard, active = self.hearing(audio), self.active(audio)
        lit, sounding = correlate(sight.proposals, heard, self.config.composition, self.config.weighing, active)
        scale = self.config.finest
        logits = F.interpolate(lit, scale_factor=scale, mode="bilinear", align_corners=False)
        return InstanceAwareOutput(logits, sight, heard, active, sounding)

    def attend(self, activity: Activity | None) -> None:
        """From now on tell noise by this."""
        self.activity = activity
        self.config = self.config.model_copy(update={"activity": activity is not None})

    def active(self, audio: Float[Tensor, "B T A"]) -> Float[Tensor, "B T"]:
        """e of each second."""
        if self.activity is None:
            return torch.ones_like(audio[..., 0])
        e: Tensor = self.activity(audio)
        return e

    def _renamed(
        self, classes: Float[Tensor, "F N K1"], masks: Float[Tensor, "F N h w"], deepest: Float[Tensor, "F C y x"]
    ) -> Float[Tensor, "F N K1"]:
        """What the last layer calls the queries, with what the backbone's classifier calls them."""
        known = self.known(deepest, masks) if self.known is not None and self.config.known else None
        return renamed(classes, self.config.temperature, known, self.config.known or 0.0)

    def _pick(
        self, named: Float[Tensor, "F D y x"], cells: Float[Tensor, "F K1 y x"]
    ) -> tuple[Float[Tensor, "F N D"], Float[Tensor, "F N D"]]:
        """The queries and where they stand: the learnt ones, and the strongest local maxima of 1 − p(∅)."""
        count = self.config.queries - self.config.learnt
        places = positions(named)
        # in bfloat16 neighbours would tie at 1 and all of them count as maxima
        at = peaks(1 - cells.float().softmax(1)[:, -1].detach(), count)[..., None].expand(-1, -1, named.shape[1])
        picked = named.flatten(2).mT.gather(1, at)
        where = places.expand(len(named), -1, -1).gather(1, at)
        learnt = self.learnt.expand(len(named), -1, -1)
        return torch.cat([picked, learnt], 1), torch.cat([where, torch.zeros_like(learnt)], 1)

    def _decode(
        self,
        levels: tuple[Float[Tensor, "F D _ _"], ...],
        picked: tuple[Float[Tensor, "F N D"], Float[Tensor, "F N D"]],
    ) -> list[tuple[Float[Tensor, "F N K1"], Float[Tensor, "F N h w"]]]:
        """Classes and masks before the first layer and after each; the layers look at coarse maps first."""
        queries, where = picked
        answers = [self._say(queries, levels[0])]
        for i, layer in enumerate(self.decoder):
            level = levels[2 - i % 3]
            queries = layer(queries, where, level, answers[-1][1])
            answers.append(self._say(queries, levels[0]))
        return answers

    def _say(
        self, queries: Float[Tensor, "F N D"], finest: Float[Tensor, "F D h w"]
    ) -> tuple[Float[Tensor, "F N K1"], Float[Tensor, "F N h w"]]:
        normed = self.norm(queries)
        # dot products of D numbers of size 1 would start with a deviation of √D
        masks = torch.einsum("fnd,fdhw->fnhw", self.kernels(normed), finest) / math.sqrt(finest.shape[1])
        return self.classes(normed), masks


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al., CVPR 2017): all levels with D channels, coarse ones added to finer ones."""

    def __init__(self, in_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_normed(nn.Conv2d(c, channels, 1, bias=False)) for c in in_channels)
        self.smooth = nn.ModuleList(
            _normed(nn.Conv2d(channels, channels, 3, padding=1, bias=False)).append(nn.ReLU()) for _ in in_channels
        )

    def forward(self, maps: tuple[Float[Tensor, "F _ _ _"], ...]) -> tuple[Float[Tensor, "F D _ _"], ...]:
        """Finest first, in and out."""
        levels: list[Tensor] = []
        above: Tensor | None = None
        for x, lateral, smooth in reversed(list(zip(maps, self.lateral, self.smooth, strict=True))):
            own = lateral(x)
            if above is not None:
                own = own + F.interpolate(above, own.shape[-2:], mode="bilinear", align_corners=False)
            above = smooth(own)
            levels.append(above)
        return tuple(reversed(levels))


class DecoderLayer(nn.Module):
    """Masked attention to one level, attention among the queries, a feed-forward net; each added and normed."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.look = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.talk = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.think = nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(
        self,
        queries: Float[Tensor, "F N D"],
        where: Float[Tensor, "F N D"],
        level: Float[Tensor, "F D y x"],
        masks: Float[Tensor, "F N h w"],
    ) -> Float[Tensor, "F N D"]:
        """Each query looks at the positions of `level` within its mask, or at all where its mask is empty."""
        seen = level.flatten(2).mT
        keys = seen + positions(level)
        hidden = outside(masks.detach(), level.shape[-2:]).repeat_interleave(self.heads, 0)
        asked = self.look(queries + where, keys, seen, attn_mask=hidden, need_weights=False)[0]
        queries = self.norms[0](queries + asked)
        placed = queries + where
        queries = self.norms[1](queries + self.talk(placed, placed, queries, need_weights=False)[0])
        out: Tensor = self.norms[2](queries + self.think(queries))
        return out


def renamed(
    classes: Float[Tensor, "*n K1"],
    temperature: float,
    known: Float[Tensor, "*n K"] | None = None,
    weight: float = 0.0,
) -> Float[Tensor, "*n K1"]:
    """Logits under which p(k | something) is in proportion to p(k | something)^(1/temperature) · q(k)^weight.

    p(∅) stays as it is. A net that knows each of its training objects by heart is far too sure of the names of others
    (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017), and log q = `known` are the names that one
    gives who has seen more (Hinton, "Training Products of Experts", 2002).
    """
    if temperature == 1 and known is None:
        return classes
    something, names = classes[..., :-1].logsumexp(-1, keepdim=True), classes[..., :-1] / temperature
    if known is not None:
        names = names + weight * known
    return torch.cat([names.log_softmax(-1) + something, classes[..., -1:]], -1)


def peaks(strength: Float[Tensor, "F y x"], count: int) -> Int64[Tensor, "F n"]:
    """Where the `count` strongest cells that no neighbour exceeds lie, row by row; then the strongest of the others.

    Raises ConfigError when there are fewer cells.
    """
    cells = strength[0].numel()
    if cells < count:
        raise ConfigError(f"{count} queries need as many cells, the frames have {cells}: use larger frames")
    highest = F.max_pool2d(strength[:, None], 3, stride=1, padding=1)[:, 0]
    # strengths are below 1, so every local maximum comes before everything else
    ranked = strength + (strength == highest)
    return ranked.flatten(1).topk(count, dim=1).indices


def outside(masks: Float[Tensor, "F N h w"], size: tuple[int, int] | torch.Size) -> Bool[Tensor, "F N P"]:
    """Which positions of a map of `size` each query may not look at; an empty mask hides nothing."""
    hidden = F.interpolate(masks, tuple(size), mode="bilinear", align_corners=False).flatten(2) < 0
    return hidden & ~hidden.all(-1, keepdim=True)


def positions(level: Float[Tensor, "F D y x"]) -> Float[Tensor, "1 P D"]:
    """Sines and cosines of where each position lies in the picture, half of the channels for y, half for x."""
    _, D, y, x = level.shape
    return _sines(D, y, x).to(level)


@lru_cache(maxsize=32)
def _sines(channels: int, tall: int, wide: int) -> Float[Tensor, "1 P D"]:
    def along(cells: int) -> Float[Tensor, "cells Q"]:
        # the picture is 2π wide at any size; wave lengths from the picture's side down to a 64th of it
        middle = (torch.arange(cells) + 0.5) / cells * 2 * math.pi
        angles = middle[:, None] * torch.logspace(0, 6, channels // 4, base=2)
        return torch.cat([angles.sin(), angles.cos()], 1)

    rows, columns = along(tall)[:, None].expand(-1, wide, -1), along(wide)[None].expand(tall, -1, -1)
    return torch.cat([rows, columns], -1).flatten(0, 1)[None]


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.GroupNorm(_GROUPS, convolution.out_channels))
