"""Whether anything is heard at all.

The audio network of the instance-aware model is only ever asked which things sound, and the noise of a room resembles
one of them more than the others. So it is asked first whether there is more than noise: sound event detection with a
single class (Mesaros et al., "Sound Event Detection: A Tutorial", IEEE Signal Processing Magazine 2021). (ours)
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Activity(nn.Module):
    """e = sigmoid(w · x + b), x an embedding at mean 0 and variance 1: the probability of more than noise."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.score = nn.Linear(channels, 1)

    def forward(self, audio: Float[Tensor, "*frames A"]) -> Float[Tensor, "*frames"]:
        """Of each second on its own, in [0, 1]."""
        return torch.sigmoid(self.score(self.norm(audio.float()))[..., 0])
