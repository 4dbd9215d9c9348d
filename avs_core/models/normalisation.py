"""Frames as a backbone wants them."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float32, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per RGB channel, of values in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, frames: UInt8[Tensor, "B T H W 3"]) -> Float32[Tensor, "B T 3 H W"]:
        """uint8 RGB → what the backbone was trained on."""
        mean, std = (torch.tensor(values, device=frames.device) * 255 for values in (self.mean, self.std))
        return rearrange((frames.float() - mean) / std, "B T H W c -> B T c H W")
