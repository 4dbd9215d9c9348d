"""Where the audio meets the picture: the response of each TPAVI block, as pictures.

The published block weighs positions by α = θ(V) φ(Â)ᵀ / N (Zhou et al., ECCV 2022, section 3.3). Since φ(Â) is the
same at each position of a frame, what the sound of second t asks of position p of frame t is one number,

    r_p = θ_p · φ_t = θ(V)_p · φ(Â_t)

with V the map of the stage and Â_t the aligned audio. It has a sign: what follows (g, W_z, the batch norm) may turn a
low response into a sounding pixel as well as a high one. A picture shows r of one frame from its lowest (0) to its
highest (1) value: where the block tells positions apart, not by how much.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from avs_core.datasets.labelled import LabelledClip
from avs_core.models.bundle import Bundle
from avs_core.models.normalisation import Normalisation
from avs_core.models.tpavi import TPAVI, TPAVINet


@torch.inference_mode()
def audio_responses(bundle: Bundle, clip: LabelledClip) -> dict[int, Float32[np.ndarray, "T h w"]]:
    """r by stage (0 = the finest), for the stages that hear through TPAVI; {} for a net that doesn't.

    The clip's first `window_s` seconds, as the bundle sees them together.
    """
    if not isinstance(bundle.net, TPAVINet):
        return {}
    device, window = next(bundle.net.parameters()).device, slice(bundle.config.window_s)
    frames, sound = torch.from_numpy(clip.frames)[None, window], torch.from_numpy(clip.sound)[window]
    levels = bundle.net.look(Normalisation(bundle.config.mean, bundle.config.std)(frames.to(device)))
    audio = bundle.audio_encoder(sound.to(device))[None]
    return {
        int(stage): response(block, levels[int(stage)], audio)[0].float().cpu().numpy()
        for stage, block in bundle.net.tpavi.items()
        if isinstance(block, TPAVI)
    }


def response(
    block: TPAVI, visual: Float[Tensor, "B T C H W"], audio: Float[Tensor, "B T A"]
) -> Float[Tensor, "B T H W"]:
    """r_p = θ(V)_p · φ(Â)_t for each position of each frame, with the sound of that frame."""
    theta = block.theta(visual.permute(0, 1, 3, 4, 2))
    phi = block.phi(block.align(audio))
    found: Tensor = torch.einsum("bthwd,btd->bthw", theta, phi)
    return found


def attention_figure(bundle: Bundle, clip: LabelledClip) -> Figure | None:
    """One row a stage over the frames; None for a net that does not hear through TPAVI."""
    responses = audio_responses(bundle, clip)
    if not responses:
        return None
    seconds = len(next(iter(responses.values())))
    figure = Figure(figsize=(1.7 * seconds + 1.4, 1.7 * (len(responses) + 1) + 0.5), layout="constrained")
    axes = figure.subplots(len(responses) + 1, seconds, squeeze=False)
    for t in range(seconds):
        axes[0, t].imshow(clip.frames[t])
        axes[0, t].contour(clip.masks[t], levels=[0.5], colors="lime", linewidths=1)
        axes[0, t].set_title(f"second {t}", fontsize=9)
        for i, stage in enumerate(sorted(responses), 1):
            axes[i, t].imshow(clip.frames[t].mean(-1), cmap="gray")
            _overlay(axes[i, t], responses[stage][t], *clip.masks.shape[1:])
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("frame, truth", fontsize=9)
    for i, stage in enumerate(sorted(responses), 1):
        axes[i, 0].set_ylabel(f"stage {stage + 1}, stride {bundle.config.net.strides[stage]}", fontsize=9)
    figure.suptitle(f"{clip.ref.clip_id}: response to the sound, by frame from lowest to highest", fontsize=10)
    return figure


def _overlay(axis: Axes, values: Float32[np.ndarray, "h w"], height: int, width: int) -> None:
    """Over a picture of height × width pixels, whose middles lie at whole numbers."""
    low, high = float(values.min()), float(values.max())
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axis.imshow(values, cmap="inferno", alpha=0.7, vmin=low, vmax=high, interpolation="bilinear", extent=extent)
