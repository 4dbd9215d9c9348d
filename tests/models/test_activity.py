"""Whether anything is heard at all: the printed formula, and what it does to everything that is said of a second."""

import pytest
import torch

from avs_core.models.activity import Activity
from avs_core.models.correlation import Composition, Proposals, Weighing, correlate

K, N = 3, 4


def test_it_is_the_printed_formula() -> None:
    torch.manual_seed(0)
    activity, audio = Activity(16), 5 * torch.randn(2, 3, 16) + 2
    x = (audio - audio.mean(-1, keepdim=True)) / (audio.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(activity(audio), torch.sigmoid(x @ activity.score.weight[0] + activity.score.bias))


def proposals() -> Proposals:
    stream = torch.Generator().manual_seed(1)
    return Proposals(torch.randn(1, 2, N, K + 1, generator=stream), torch.randn(1, 2, N, 4, 4, generator=stream))


@pytest.mark.parametrize("weighing", [None, Weighing(own=0.5, rival=1.6, shift=0.2)])
def test_it_scales_how_surely_each_object_sounds(weighing: Weighing | None) -> None:
    heard, active = torch.randn(1, 2, K), torch.tensor([[0.25, 1.0]])
    plain = correlate(proposals(), heard, "instances", weighing)[1]
    scaled = correlate(proposals(), heard, "instances", weighing, active)[1]
    torch.testing.assert_close(scaled, plain * active[..., None])


@pytest.mark.parametrize("composition", ["instances", "categories", "all"])
def test_noise_lights_nothing_but_where_the_sound_is_not_asked(composition: Composition) -> None:
    heard = torch.full((1, 2, K), 4.0)
    lit, _ = correlate(proposals(), heard, composition, active=torch.tensor([[0.0, 1.0]]))
    plain, _ = correlate(proposals(), heard, composition)
    torch.testing.assert_close(lit[:, 1], plain[:, 1])
    if composition == "all":
        torch.testing.assert_close(lit, plain)
    else:
        assert float(torch.sigmoid(lit[:, 0]).max()) < 1e-4


def test_a_sum_of_probabilities_that_is_rounded_up_is_still_one() -> None:
    stream = torch.Generator().manual_seed(0)
    sure = Proposals(
        torch.cat([8 * torch.randn(1, 1, 500, 60, generator=stream), torch.full((1, 1, 500, 1), -50.0)], -1),
        torch.zeros(1, 1, 500, 1, 1),
    )
    assert float(sure.probabilities.sum(-1).max()) > 1
    _, sounding = correlate(sure, torch.full((1, 1, 60), 50.0), "all")
    assert float(sounding.max()) == 1
