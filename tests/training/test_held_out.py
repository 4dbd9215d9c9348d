"""The figures of answers that are known beforehand, and the pictures of them."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from avs_core.datasets.composed import ComposedSet
from avs_core.datasets.sources import Sources
from avs_core.metrics import FrameScores
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.tpavi import TPAVINet
from avs_core.training.held_out import HeldOut
from avs_core.training.initialise import LITE0_INPUT
from avs_core.training.network import TPAVITrainee, Trainee
from tests.test_recipes import SemanticTold
from tests.training.conftest import TINY_NET


@pytest.fixture
def held_out(tiny_sources: Sources) -> HeldOut:
    return HeldOut(ComposedSet(tiny_sources, {"val": 5, "test": 2}, seconds=3), 32, "aligned", 3)


def test_validation_is_the_miou_of_every_frame(held_out: HeldOut, trainee: Trainee) -> None:
    scores, trainee = FrameScores(), trainee.eval()
    with torch.inference_mode():
        for clip in held_out.load("val"):
            masks = trainee(torch.from_numpy(clip.frames)[None], torch.from_numpy(clip.sound)[None]).masks
            scores.update(masks.logits[0], torch.from_numpy(clip.masks))
    assert held_out.validate(trainee) == {"miou": pytest.approx(scores.compute().miou, abs=1e-6)}


def test_some_clips_are_spread_over_the_split(held_out: HeldOut) -> None:
    whole = held_out.refs("val")
    assert len(whole) == 5
    assert replace(held_out, clips=3).refs("val") == (whole[0], whole[2], whole[4])
    assert replace(held_out, clips=9).refs("val") == whole


def test_samples_are_pictures_with_a_row_for_what_is_seen_wanted_and_said(held_out: HeldOut, trainee: Trainee) -> None:
    found = held_out.samples(trainee.eval(), clips=2)
    assert len(found) == 2
    clip = next(held_out.load("val"))
    sheet = np.asarray(Image.open(io.BytesIO(found[f"ms3-{clip.ref.clip_id}.png"])))
    assert sheet.shape == (3 * 32, 3 * 32, 3)
    assert np.array_equal(sheet[:32, 32:64], clip.frames[1])
    assert np.array_equal(sheet[32:64, :32, 0] > 0, clip.masks[0])


def test_the_figure_of_classes_is_a_mean_over_classes() -> None:
    """Everything is class 3; the answer says 3 in half of the pixels and 1 in the others."""
    data = SemanticTold(((0,),) * 2, (5,) * 2, setting="avss")

    class Half(TPAVITrainee):
        def forward(self, frames, sound):  # type: ignore[no-untyped-def]  # as Trainee's
            answer = super().forward(frames, sound)
            logits = torch.zeros_like(answer.masks.logits)
            logits[:, :, 3, :16], logits[:, :, 1, 16:] = 9.0, 9.0
            return replace(answer, masks=replace(answer.masks, logits=logits))

    net = TPAVINet(TINY_NET.model_copy(update={"classes": 4}))
    half = Half(net, AudioCNN(), LITE0_INPUT, None).eval()
    # class 3: 1/2; class 1: 0; 0 and 2 appear nowhere and count 0, as published
    assert HeldOut(data, 32, "official", 5).validate(half) == {"miou": pytest.approx(0.5 / 4)}
