"""The response of a block is the published similarity, and the figure is drawn for nets that hear."""

from pathlib import Path

import numpy as np
import torch

from avs_core.evaluation.attention import attention_figure, audio_responses, response
from avs_core.models.tpavi import TPAVI
from tests.evaluation.bundles import tiny_bundle
from tests.evaluation.worlds import World

CLIP = World().load(World().clips("test")[3], 64)


def test_the_response_is_a_row_of_the_published_similarity() -> None:
    """α = θ(V) φ(Â)ᵀ / N in full, with Â repeated over the positions: α_pq · N for any q of p's own frame."""
    torch.manual_seed(0)
    block, (T, C, H, W) = TPAVI(8, 128, 4), (3, 8, 2, 5)
    visual, audio = torch.randn(1, T, C, H, W), torch.randn(1, T, 128)
    with torch.no_grad():
        positions = visual[0].permute(0, 2, 3, 1).reshape(-1, C)
        repeated = block.align(audio[0]).repeat_interleave(H * W, dim=0)
        alpha = block.theta(positions) @ block.phi(repeated).T / len(positions)
        own = torch.stack([alpha[p, (p // (H * W)) * H * W + 3] for p in range(len(positions))])
        found = response(block, visual, audio)
    torch.testing.assert_close(found.flatten(), own * len(positions))


def test_each_stage_answers_at_its_own_stride_for_the_first_window(tmp_path: Path) -> None:
    found = audio_responses(tiny_bundle(tmp_path), CLIP)
    assert {stage: one.shape for stage, one in found.items()} == {i: (2, 64 >> i + 2, 64 >> i + 2) for i in range(4)}
    assert all(np.ptp(one) > 0 for one in found.values())


def test_no_hook_stays_behind(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    audio_responses(bundle, CLIP)
    assert not any(block._forward_pre_hooks for block in bundle.net.tpavi.values())


def test_a_net_that_cannot_hear_has_no_figure(tmp_path: Path) -> None:
    assert attention_figure(tiny_bundle(tmp_path, ()), CLIP) is None
    figure = attention_figure(tiny_bundle(tmp_path, (1, 3)), CLIP)
    assert figure is not None
    assert len(figure.axes) == 3 * 2
