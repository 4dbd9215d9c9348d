"""How much masks overlap, as tensors; for run-length masks see avs_core.masks."""

from jaxtyping import Bool, Float
from torch import Tensor


def ious(one: Bool[Tensor, "n h w"], other: Bool[Tensor, "m h w"]) -> Float[Tensor, "n m"]:
    """IoU of each pair; 0 where both are empty."""
    a, b = one.flatten(1).float(), other.flatten(1).float()
    both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1)[None] - both).clamp(min=1)
