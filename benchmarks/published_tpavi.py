"""The TPAVI block as the formula is printed, N×N matrix and all: the oracle of tests and benchmarks.

It works on the weights of an `avs_core.models.tpavi.TPAVI`, so both forms always compute the same function.
"""

from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from avs_core.models.tpavi import TPAVI, TPAVINet


class PublishedTPAVI(nn.Module):
    """Z = LN(V + BN(W_z(α g(V)))), α = θ(V) φ(Â)ᵀ / N, with Â repeated at every position."""

    def __init__(self, weights: TPAVI) -> None:
        super().__init__()
        self.weights = weights

    def forward(
        self, visual: Float[Tensor, "B T C H W"], audio: Float[Tensor, "B T A"]
    ) -> tuple[Float[Tensor, "B T C H W"], Float[Tensor, "B T C"]]:
        """As `TPAVI.forward`, in O(N²) time and memory, N = T·H·W."""
        w = self.weights
        B, T, _, H, W = visual.shape
        aligned = w.align(audio)
        positions = rearrange(visual, "B T C H W -> B (T H W) C")
        heard = repeat(aligned, "B T C -> B (T H W) C", H=H, W=W)
        alpha = w.theta(positions) @ w.phi(heard).mT / (T * H * W)
        attended = rearrange(w.W_z(alpha @ w.g(positions)), "B (T H W) C -> (B T) C H W", T=T, H=H)
        attended = rearrange(w.bn(attended), "(B T) C H W -> B T H W C", B=B)
        Z = w.norm(rearrange(visual, "B T C H W -> B T H W C") + attended)
        return rearrange(Z, "B T H W C -> B T C H W"), aligned


def as_published(net: TPAVINet) -> TPAVINet:
    """The same net with every TPAVI block in its printed form. Changes `net` and returns it."""
    for stage, block in net.tpavi.items():
        assert isinstance(block, TPAVI)
        net.tpavi[stage] = PublishedTPAVI(block)
    return net
