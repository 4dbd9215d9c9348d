"""The losses of "Audio-Visual Segmentation" (Zhou et al., ECCV 2022, arXiv 2207.05042).

    S4    BCE on the one labelled frame of each clip
    MS3   BCE on every frame + λ·L_AVM,  λ = 0.5

L_AVM pulls what is seen under the predicted mask towards what is heard. Per stage, with m = sigmoid of the logits
pooled to the size of the map, v = mean over H×W of relu(Z)·m (one vector a frame), a = the aligned audio:

    AVM-AV   Σ KL(softmax(a) ‖ softmax(v))                 over frames and channels
    AVM-VV   Σ KL(softmax(v_j) ‖ softmax(v)),  j = the frame whose audio vector is nearest in the batch

and the mean over the stages. Masks are logits everywhere; the sigmoid belongs to the loss. Logits and targets may be
(B, T, H, W), (N, H, W), or the published (N, 1, H, W): frames in clip order.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor

from avs_core.errors import ConfigError

PUBLISHED_FRAMES = 5
MS3_WEIGHT = 0.5
# What the published code adds to the distance of a frame to itself. Unnormalised audio vectors lie further apart than
# this, so a frame can be its own nearest neighbour; kept, because the published runs had it.
SELF_DISTANCE = 10.0

Logits = Float[Tensor, "*frames H W"]
Mask = Num[Tensor, "*masks H W"] | Bool[Tensor, "*masks H W"]
Maps = Sequence[Float[Tensor, "... C _ _"]]
Vectors = Sequence[Float[Tensor, "... C"] | None]


def bce_ms3(logits: Logits, target: Mask) -> Float[Tensor, ""]:
    """Binary cross entropy over every pixel of every frame; `target` is 0 or 1."""
    predicted, wanted = _frames(logits), _frames(target)
    if predicted.shape != wanted.shape:
        raise ConfigError(f"one mask a frame is needed: logits {tuple(logits.shape)}, target {tuple(target.shape)}")
    return F.binary_cross_entropy_with_logits(predicted, wanted.to(predicted.dtype))


def bce_s4(logits: Logits, target: Mask, frames_per_clip: int = PUBLISHED_FRAMES) -> Float[Tensor, ""]:
    """Binary cross entropy over the first frame of each clip, the only one that S4 labels in training.

    T is the second axis of (B, T, H, W) logits when that is longer than 1, else `frames_per_clip`. `target` holds one
    mask a clip, in any of (B, H, W), (B, 1, H, W), (B, 1, 1, H, W), or one a frame, of which the first are taken.
    """
    T = logits.shape[1] if logits.ndim == 4 and logits.shape[1] > 1 else frames_per_clip
    predicted, wanted = _frames(logits), _frames(target)
    if len(predicted) % T:
        raise ConfigError(f"{len(predicted)} frames are not whole clips of {T}: set frames_per_clip")
    first = predicted[::T]
    return bce_ms3(first, wanted[::T] if len(wanted) == len(predicted) else wanted)


def avm_av(
    logits: Logits, visual: Maps, audio: Vectors, stages: Sequence[int] | None = None, normalise: bool = False
) -> Float[Tensor, ""]:
    """AVM-AV: what is seen under the mask of a frame should be distributed as what is heard in it.

    visual      the four relu(Z), (B, T, C, h, w) or (N, C, h, w); audio  the aligned audio, (B, T, C) or (N, C)
    stages      which of them count; by default each that has audio
    normalise   scale v and a to unit length first
    """

    def divergence(v: Tensor, a: Tensor) -> Tensor:
        return _kl(a, v)

    return _over_stages(divergence, logits, visual, audio, stages, normalise)


def avm_vv(
    logits: Logits, visual: Maps, audio: Vectors, stages: Sequence[int] | None = None, normalise: bool = False
) -> Float[Tensor, ""]:
    """AVM-VV: frames that sound alike should look alike under their masks. Arguments as in `avm_av`."""

    def divergence(v: Tensor, a: Tensor) -> Tensor:
        distance = torch.cdist(a, a) + SELF_DISTANCE * torch.eye(len(a), dtype=a.dtype, device=a.device)
        return _kl(v[distance.argmin(dim=0)], v)

    return _over_stages(divergence, logits, visual, audio, stages, normalise)


def avm_semantic(
    logits: Float[Tensor, "B T K H W"],
    visual: Sequence[Float[Tensor, "B T C _ _"]],
    audio: Sequence[Float[Tensor, "B T C"] | None],
    labelled: Bool[Tensor, "B T"],
) -> Float[Tensor, ""]:
    """AVM-AV as the published AVSS code has it: mean, not sum, over the labelled frames, and a hard mask.

    The mask is where the likeliest class is not background, pooled to the size of the map; no gradient passes it. The
    published code takes the last class for the background; here it is class 0, as in every labelled set.
    """
    heard = [(Z, a) for Z, a in zip(visual, audio, strict=True) if a is not None]
    if not heard:
        raise ConfigError("L_AVM needs at least one stage that hears: the net has none")
    sounds = (logits.argmax(2) != 0).float().flatten(0, 1)[:, None]
    losses = []
    for Z, a in heard:
        m = cell_means(sounds, (Z.shape[-2], Z.shape[-1]))
        v = (Z.flatten(0, 1) * m).mean((-2, -1))
        losses.append(_kl(a[labelled], v[labelled.flatten()]) / labelled.sum())
    return torch.stack(losses).mean()


def ms3_loss(
    logits: Logits,
    target: Mask,
    visual: Maps,
    audio: Vectors,
    weight: float | int = MS3_WEIGHT,
    variant: Literal["av", "vv"] = "av",
) -> Float[Tensor, ""]:
    """The whole MS3 objective: BCE + weight · L_AVM. With weight 0 no stage needs to hear."""
    bce = bce_ms3(logits, target)
    if weight == 0:
        return bce
    return bce + weight * {"av": avm_av, "vv": avm_vv}[variant](logits, visual, audio)


def _over_stages(
    divergence: Callable[[Tensor, Tensor], Tensor],
    logits: Tensor,
    visual: Maps,
    audio: Vectors,
    stages: Sequence[int] | None,
    normalise: bool,
) -> Tensor:
    """Mean over the stages of a divergence between the frames' visual and audio vectors."""
    counted = [i for i, a in enumerate(audio) if a is not None] if stages is None else list(stages)
    masks = _frames(logits)[:, None]
    losses = []
    for stage in counted:
        heard = audio[stage]
        if heard is None:
            raise ConfigError(f"stage {stage} of this net doesn't hear: leave it out of stages={counted}")
        Z, a = visual[stage].flatten(0, -4), heard.flatten(0, -2)
        m = torch.sigmoid(cell_means(masks, (Z.shape[-2], Z.shape[-1])))
        v = (Z * m).mean(-1).mean(-1)
        losses.append(divergence(*(F.normalize(x, dim=-1) if normalise else x for x in (v, a))))
    if not losses:
        raise ConfigError("L_AVM needs at least one stage that hears: the net has none, or stages is empty")
    return torch.stack(losses).mean()


def cell_means(masks: Float[Tensor, "N C H W"], size: tuple[int, int]) -> Float[Tensor, "N C h w"]:
    """Adaptive average pooling to `size`. Where cells are whole, as in every recipe, its gradient repeats bit for bit.

    That of PyTorch's own does not on a GPU, so it stops a deterministic training.
    """
    (H, W), (h, w) = masks.shape[-2:], size
    if H % h or W % w:
        return F.adaptive_avg_pool2d(masks, size)
    return reduce(masks, "N C (h y) (w x) -> N C h w", "mean", h=h, w=w)


def pixel_cross_entropy(logits: Float[Tensor, "N K H W"], labels: Int64[Tensor, "N H W"]) -> Float[Tensor, ""]:
    """Mean cross entropy over the pixels, as a list of them: PyTorch's own for maps does not repeat on a GPU."""
    rows = rearrange(logits, "N K H W -> (N H W) K")
    return F.cross_entropy(rows, labels.flatten(), reduction="none").mean()


def _kl(target: Float[Tensor, "N C"], of: Float[Tensor, "N C"]) -> Float[Tensor, ""]:
    """Σ KL(softmax(target) ‖ softmax(of)) over rows and channels."""
    return F.kl_div(of.softmax(dim=-1).log(), target.softmax(dim=-1), reduction="sum")


def _frames(masks: Tensor) -> Num[Tensor, "N H W"] | Bool[Tensor, "N H W"]:
    """Clips, frames and a channel of one, all on one axis."""
    return masks.flatten(0, -3) if masks.ndim > 2 else masks[None]
