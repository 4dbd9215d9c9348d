"""What is asked of a model, and what is made of its logits."""

from typing import Any

import numpy as np
import pytest
import torch

from avs_core.errors import ConfigError, NonFiniteOutput
from avs_core.evaluation.predict import Candidate, bundle_candidate, sounding_logits
from avs_core.models.bundle import load_bundle
from tests.evaluation.worlds import eye
from tests.models.two_stage_sample import tiny_bundle

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
LOG_MEL = torch.randn(5, 1, 96, 64, generator=torch.Generator().manual_seed(0))


def test_windows_are_asked_one_by_one() -> None:
    asked: list[int] = []

    def listen(frames: torch.Tensor, sound: torch.Tensor) -> torch.Tensor:
        assert frames.shape[1] == sound.shape[1]
        asked.append(frames.shape[1])
        return eye(frames, sound)

    logits = Candidate("x", listen, 64, "aligned", 2).logits(FRAMES, LOG_MEL)
    assert asked == [2, 2, 1]
    assert torch.equal(logits, eye(torch.from_numpy(FRAMES)[None], LOG_MEL[None])[0])


def test_a_bundle_answers_what_its_nets_answer_in_its_own_windows() -> None:
    bundle = load_bundle("tpavi-light")
    logits = bundle_candidate(bundle, "cpu").logits(FRAMES, LOG_MEL)
    mean, std = (torch.tensor(x)[:, None, None] for x in (bundle.config.mean, bundle.config.std))
    frames = (torch.from_numpy(FRAMES).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        wanted = bundle.net(frames[None], bundle.audio_encoder(LOG_MEL)[None]).logits[0]
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arch", ["tpavi", "two_stage"])
def test_pictures_are_looked_at_once_for_all_sounds(monkeypatch: pytest.MonkeyPatch, arch: str) -> None:
    bundle = load_bundle("tpavi-light") if arch == "tpavi" else tiny_bundle()
    candidate, looks, look = bundle_candidate(bundle, "cpu"), list[int](), bundle.net.look

    def counted(frames: torch.Tensor) -> Any:
        looks.append(frames.shape[1])
        return look(frames)

    monkeypatch.setattr(bundle.net, "look", counted)
    side = bundle.config.net.strides[-1]
    clips = [np.full((8, side, side, 3), grey, np.uint8) for grey in (0, 90)]
    sounds = [torch.randn(8, 1, 96, 64, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    answers = [[candidate.logits(clip, sound) for sound in sounds] for clip in clips]
    assert looks == [5, 3, 5, 3]
    assert all(not torch.equal(answers[i][0], answers[j][k]) for i, j, k in ((0, 0, 1), (0, 1, 0), (1, 1, 2)))


def test_logits_that_are_no_numbers_stop_the_evaluation() -> None:
    def broken(frames: torch.Tensor, sound: torch.Tensor) -> torch.Tensor:
        return torch.full(frames.shape[:-1], torch.nan)

    with pytest.raises(NonFiniteOutput, match="must be finite"):
        Candidate("x", broken, 64, "aligned", 5).logits(FRAMES, LOG_MEL)


def test_of_classes_sounding_is_all_but_the_background() -> None:
    logits = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.sigmoid(sounding_logits(logits)), 1 - logits.softmax(1)[:, 0])
    assert torch.equal(sounding_logits(logits[:, 0]), logits[:, 0])


def test_a_threshold_is_a_probability() -> None:
    with pytest.raises(ConfigError, match="threshold"):
        Candidate("x", eye, 64, "aligned", 5, 1.0)
