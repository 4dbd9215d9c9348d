"""One TPAVI block at the finest stage of a published clip, 5×56×56: printed N×N form against the folded one."""

import torch
from torch import nn

from avs_core.models.tpavi import TPAVI
from benchmarks.measure import Row, alternately, peak_mb
from benchmarks.published_tpavi import PublishedTPAVI

SHAPE = (1, 5, 256, 56, 56)
AUDIO = (1, 5, 128)


def run() -> list[Row]:
    """Seconds, peak memory, their ratios, and how far the two results are apart."""
    printed, folded = blocks()
    visual, audio = torch.randn(SHAPE), torch.rand(AUDIO)
    results: dict[str, torch.Tensor] = {}

    def forward(name: str, block: nn.Module) -> None:
        with torch.inference_mode():
            results[name] = block(visual, audio)[0]

    with torch.inference_mode():
        folded(visual, audio)
    seconds = alternately({"printed": lambda: forward("printed", printed), "folded": lambda: forward("folded", folded)})
    memory = {name: peak_mb(forward_once, name) for name in ("printed", "folded")}
    return [
        Row("printed form", seconds["printed"], "s"),
        Row("folded form", seconds["folded"], "s"),
        Row("time, printed / folded", seconds["printed"] / seconds["folded"], "×"),
        Row("printed form, peak memory", memory["printed"], "MB"),
        Row("folded form, peak memory", memory["folded"], "MB"),
        Row("memory, printed / folded", memory["printed"] / memory["folded"], "×"),
        Row("largest difference of Z", float((results["printed"] - results["folded"]).abs().max()), ""),
    ]


def blocks() -> tuple[PublishedTPAVI, TPAVI]:
    """One block with an open audio path, in both forms."""
    torch.manual_seed(0)
    block = TPAVI(SHAPE[2], AUDIO[2]).eval()
    nn.init.ones_(block.bn.weight)
    return PublishedTPAVI(block).eval(), block


def forward_once(name: str) -> None:
    """One forward pass, for a process of its own; the input is counted too."""
    block = dict(zip(("printed", "folded"), blocks(), strict=True))[name]
    with torch.inference_mode():
        block(torch.randn(SHAPE), torch.rand(AUDIO))
