"""From a score to a probability: of the objects that get p, the share p sounds.

Platt, "Probabilistic outputs for support vector machines", 1999: a logistic curve over the logit of the score, here
with two numbers that are fitted on the validation split after training. The order of the scores stays as it is.
"""

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

_SURE = 1e-6


class Calibration(BaseModel):
    """p = sigmoid(scale · logit(score) + shift)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(gt=0, allow_inf_nan=False)
    shift: float = Field(allow_inf_nan=False)

    def __call__(self, score: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Of scores in [0, 1]."""
        return torch.sigmoid(self.scale * torch.logit(score, eps=_SURE) + self.shift)
