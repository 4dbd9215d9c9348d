"""The whole published net, PVT-v2-b5 on one clip of 5 frames of 224×224: printed TPAVI blocks against folded ones."""

from functools import partial

import torch
from torch import nn

from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from benchmarks.measure import Row, alternately, peak_mb
from benchmarks.published_tpavi import as_published

FRAMES = (1, 5, 3, 224, 224)
AUDIO = (1, 5, 128)


def run() -> list[Row]:
    """Seconds a clip, peak memory, their ratios, and how far the logits are apart."""
    nets = {"printed": net("printed"), "folded": net("folded")}
    frames, audio = torch.randn(FRAMES), torch.rand(AUDIO)
    results: dict[str, torch.Tensor] = {}

    def forward(name: str) -> None:
        with torch.inference_mode():
            results[name] = nets[name](frames, audio).logits

    forward("folded")
    seconds = alternately({name: partial(forward, name) for name in nets}, rounds=2)
    memory = {name: peak_mb(forward_once, name) for name in nets}
    return [
        Row("clip with printed blocks", seconds["printed"], "s"),
        Row("clip with folded blocks", seconds["folded"], "s"),
        Row("time, printed / folded", seconds["printed"] / seconds["folded"], "×"),
        Row("printed blocks, peak memory", memory["printed"], "MB"),
        Row("folded blocks, peak memory", memory["folded"], "MB"),
        Row("memory, printed / folded", memory["printed"] / memory["folded"], "×"),
        Row("largest difference of a logit", float((results["printed"] - results["folded"]).abs().max()), ""),
    ]


def net(form: str) -> TPAVINet:
    """The published architecture with weights drawn from one seed; speed doesn't depend on them."""
    torch.manual_seed(0)
    built = TPAVINet(TPAVIConfig(backbone="pvt_v2_b5")).eval()
    for name, weight in built.tpavi.named_parameters():
        if name.endswith("bn.weight"):
            nn.init.ones_(weight)
    return as_published(built) if form == "printed" else built


def forward_once(form: str) -> None:
    """One forward pass, for a process of its own; weights and input are counted too."""
    built = net(form)
    with torch.inference_mode():
        built(torch.randn(FRAMES), torch.rand(AUDIO))
