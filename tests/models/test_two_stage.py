"""The two-stage baseline: its maps against a loop, its stage 1 against torchvision, and what each part may know."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from parity.generate import normal, uniform
from pydantic import ValidationError
from torch import Tensor
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.misc import FrozenBatchNorm2d

from avs_core.errors import CheckpointMismatch, ConfigError
from avs_core.models import two_stage
from avs_core.models.bundle import load_bundle, save_bundle
from avs_core.models.segmenter import UnionSegmenter, open_segmenter
from avs_core.models.two_stage import (
    Fusion,
    Instances,
    Regions,
    Target,
    TwoStageConfig,
    TwoStageNet,
    instance_map,
)
from avs_core.training.initialise import load_mask_rcnn
from avs_core.training.loop import repeatable
from tests.models.test_segmenter import clip
from tests.models.two_stage_sample import tiny_bundle, tiny_net


@pytest.fixture(scope="module")
def net() -> TwoStageNet:
    return tiny_net()


@pytest.fixture
def frames() -> Tensor:
    return normal("frames", (1, 2, 3, 64, 128))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_map_is_the_loop(count: int) -> None:
    found = Instances(uniform("scores", (3,))[:count], uniform("masks", (3, 5, 7))[:count])
    joined = instance_map(found)
    for y in range(5):
        for x in range(7):
            expected = 0.0
            for score, mask in zip(found.scores, found.masks, strict=True):
                expected = max(expected, float(score * mask[y, x]))
            assert float(joined[y, x]) == pytest.approx(expected)


def test_fusion_is_the_formula() -> None:
    torch.manual_seed(0)
    fusion = Fusion(16, 6)
    V, M, a = normal("V", (2, 16, 4, 4)), uniform("M", (2, 1, 8, 16)), normal("a", (2, 6))
    cells = torch.stack(
        [M[:, 0, 2 * y : 2 * y + 2, 4 * x : 4 * x + 4].mean((1, 2)) for y in range(4) for x in range(4)]
    )
    heard = fusion.align[1](fusion.align[0](a))
    joined = torch.zeros(2, 33, 4, 4)
    joined[:, :16], joined[:, 16] = fusion.norm(V), cells.T.reshape(2, 4, 4)
    for y in range(4):
        for x in range(4):
            joined[:, 17:, y, x] = heard
    expected = fusion.fuse[2](torch.relu(fusion.fuse[0](joined)))
    torch.testing.assert_close(fusion(V, M, a), expected)


def test_the_logits_have_the_size_of_the_frames_whatever_their_number_and_shape(net: TwoStageNet) -> None:
    for B, T, H, W in ((1, 1, 64, 64), (2, 3, 64, 128)):
        with torch.inference_mode():
            answer = net(normal("frames", (B, T, 3, H, W)), normal("audio", (B, T, 128)))
        assert answer.logits.shape == answer.view.instances.shape == (B, T, H, W)
        assert answer.logits.dtype == torch.float32


def test_what_is_found_is_in_its_place_and_within_bounds(net: TwoStageNet, frames: Tensor) -> None:
    with torch.inference_mode():
        found = net.regions(frames).instances()
        maps = net.look(frames).instances[0]
    assert [len(one.scores) for one in found] == [4, 4]
    for one, joined in zip(found, maps, strict=True):
        assert torch.equal(joined, instance_map(one))
        assert 0 < float(joined.max()) <= float(one.scores.max()) <= 1


def test_frames_are_seen_one_by_one(net: TwoStageNet, frames: Tensor) -> None:
    audio = normal("audio", (1, 2, 128))
    with torch.inference_mode():
        both = net(frames, audio).logits
        single = torch.cat([net(frames[:, t : t + 1], audio[:, t : t + 1]).logits for t in range(2)], 1)
    torch.testing.assert_close(both, single, atol=1e-5, rtol=1e-5)


def test_the_same_frames_and_sound_give_the_same_bytes(net: TwoStageNet, frames: Tensor) -> None:
    audio = normal("audio", (1, 2, 128))
    with torch.inference_mode():
        assert torch.equal(net(frames, audio).logits, net(frames, audio).logits)


def test_another_sound_is_another_answer_to_the_same_look(net: TwoStageNet, frames: Tensor) -> None:
    one, other = (normal(name, (1, 2, 128)) for name in ("one", "other"))
    with torch.inference_mode():
        view = net.look(frames)
        before = view.instances.clone()
        first, second = net.listen(view, one).logits, net.listen(view, other).logits
        assert torch.equal(first, net(frames, one).logits)
    assert not torch.equal(first, second)
    assert torch.equal(view.instances, before)


def test_the_maps_decide_too(net: TwoStageNet, frames: Tensor) -> None:
    audio = normal("audio", (1, 2, 128))
    with torch.inference_mode():
        view = net.look(frames)
        empty = type(view)(view.levels, torch.zeros_like(view.instances))
        assert not torch.equal(net.listen(view, audio).logits, net.listen(empty, audio).logits)


def test_no_gradient_reaches_stage_1_from_stage_2(frames: Tensor) -> None:
    net = tiny_net()
    net(frames, normal("audio", (1, 2, 128))).logits.mean().backward()
    reached = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    stage_1 = {name for name, _ in net.named_parameters() if name.startswith("detector.")}
    body = {name for name in stage_1 if name.startswith("detector.backbone.body.")}
    assert reached & stage_1 <= body, "the backbone is the only part that both look through"
    assert reached >= {name for name, _ in net.named_parameters()} - stage_1


def test_stage_1_learns_where_things_are_with_torchvisions_losses(frames: Tensor) -> None:
    net = tiny_net().train()
    masks = torch.zeros(1, 64, 128, dtype=torch.uint8)
    masks[:, 10:40, 20:60] = 1
    thing = Target(torch.tensor([[20.0, 10.0, 60.0, 40.0]]), torch.tensor([1]), masks)
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), masks[:0])
    losses = net.regions(frames).losses([thing, nothing])
    assert set(losses) == {"objectness", "rpn_box_reg", "classifier", "box_reg", "mask"}
    torch.stack(list(losses.values())).sum().backward()
    reached = {name.split(".")[0] for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert reached == {"detector"}
    empty = net.regions(frames).losses([nothing, nothing])
    assert all(bool(torch.isfinite(loss)) for loss in empty.values())


@contextmanager
def proposals_of(net: TwoStageNet) -> Iterator[list[Tensor]]:
    """All that the region proposal network says within the block."""
    said: list[Tensor] = []
    hook = net.detector.rpn.register_forward_hook(lambda _module, _inputs, output: said.extend(output[0]))
    try:
        yield said
    finally:
        hook.remove()


def bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.fixture
def wide() -> Tensor:
    """Boxes in it have edges that bfloat16 can't tell apart."""
    return normal("wide", (1, 1, 3, 64, 512))


def test_autocast_reaches_no_box_in_training(wide: Tensor) -> None:
    net = tiny_net().train()
    masks = torch.zeros(1, 64, 512, dtype=torch.uint8)
    masks[:, 10:41, 301:363] = 1
    thing = Target(torch.tensor([[301.0, 10.0, 363.0, 41.0]]), torch.tensor([1]), masks)
    with bfloat16():
        regions = net.regions(wide)
    assert {level.dtype for level in regions.pyramid.values()} == {torch.float32}
    losses = []
    for context in (bfloat16(), nullcontext()):
        torch.manual_seed(0)  # Mask R-CNN draws the regions that it learns from
        with context, proposals_of(net) as said:
            losses.append(regions.losses([thing]))
        assert {boxes.dtype for boxes in said} == {torch.float32}
        assert any(not torch.equal(boxes.bfloat16().float(), boxes) for boxes in said)
    for name, value in losses[1].items():
        assert torch.equal(losses[0][name], value), name
    torch.manual_seed(0)
    # Which regions there are to draw from hangs on how a processor rounds in bfloat16: both draw from the same.
    hook = net.detector.rpn.register_forward_hook(lambda _module, _inputs, output: (said, output[1]))
    exact = net.regions(wide).losses([thing])
    hook.remove()
    for name, value in exact.items():
        torch.testing.assert_close(losses[0][name], value, atol=0.02, rtol=0.02)


def test_autocast_reaches_no_box_in_what_stage_2_sees(net: TwoStageNet, wide: Tensor) -> None:
    with torch.inference_mode(), proposals_of(net) as said:
        with bfloat16():
            regions = net.regions(wide)
            found = regions.instances()
            net.look(wide)
        (exact,) = regions.instances()
    assert len(said) == 3
    assert {boxes.dtype for boxes in said} == {torch.float32}
    assert torch.equal(found[0].scores, exact.scores)
    assert torch.equal(found[0].masks, exact.masks)
    assert len(exact.scores) > 0


def test_a_gpu_without_triton_is_not_asked_to_repeat_stage_1(net: TwoStageNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said of a GPU that is not here."""
    gpu, images = torch.device("cuda"), ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
    images.tensors = SimpleNamespace(device=gpu)
    monkeypatch.setattr(two_stage, "is_compile_supported", lambda _: False)
    with repeatable(True), pytest.raises(ConfigError, match="leave out --deterministic"):
        Regions(net.detector, {}, images).losses([])
    two_stage.require_repeatable(gpu)
    with repeatable(True):
        two_stage.require_repeatable(torch.device("cpu"))
        monkeypatch.setattr(two_stage, "is_compile_supported", lambda _: True)
        two_stage.require_repeatable(gpu)


def test_frames_of_half_a_cell_are_refused(net: TwoStageNet) -> None:
    for call in (net.look, net.regions):
        with pytest.raises(ConfigError, match="multiples of 64 pixels high and wide, got 64×96"):
            call(torch.zeros(1, 1, 3, 64, 96))


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 20},
        {"backbone": "vgg16"},
        {"detector": {"classes": 1}},
        {"detector": {"anchors": (32, 64, 128, 256)}},
        {"detector": {"anchors": (32, 64, 64, 256, 512)}},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TwoStageConfig.model_validate({"backbone": "resnet50"} | wrong)


def torchvisions() -> MaskRCNN:
    """maskrcnn_resnet50_fpn as torchvision builds it for its COCO weights, with random ones."""
    torch.manual_seed(0)
    encoder = _resnet_fpn_extractor(resnet50(weights=None, norm_layer=FrozenBatchNorm2d), trainable_layers=0)
    model = MaskRCNN(encoder, 91, min_size=128, max_size=128, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    overwrite_eps(model, 0.0)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            # small enough for the ε of a batch norm to count
            module.running_var = 10 ** torch.empty_like(module.running_var).uniform_(-6, 0)
            module.weight = 0.25 * module.running_var.sqrt()
    model.roi_heads.box_predictor.cls_score.bias.data[1] = 4
    return model.eval()


def test_torchvisions_weights_load_and_find_what_torchvision_finds(tmp_path: Path) -> None:
    theirs = torchvisions()
    path = tmp_path / "coco.pth"
    torch.save(theirs.state_dict(), path)
    torch.manual_seed(1)
    ours = TwoStageNet(TwoStageConfig(backbone="resnet50", channels=16)).eval()
    load_mask_rcnn(ours.detector, str(path))
    frame = normal("coco", (3, 128, 128))
    with torch.inference_mode():
        (expected,), (found,) = theirs([frame]), ours.regions(frame[None, None]).instances()
    assert len(found.scores) > 5
    torch.testing.assert_close(found.scores, expected["scores"], atol=1e-4, rtol=1e-3)
    assert found.masks.shape == expected["masks"][:, 0].shape
    torch.testing.assert_close(found.masks, expected["masks"][:, 0], atol=1e-3, rtol=1e-3)


def test_weights_of_something_else_are_refused(net: TwoStageNet, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"backbone.body.conv_stem.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointMismatch, match="is not torchvision's maskrcnn_resnet50_fpn"):
        load_mask_rcnn(net.detector, str(path))


def test_a_bundle_survives_with_its_anchors(net: TwoStageNet, tmp_path: Path) -> None:
    made = tiny_bundle()
    save_bundle(tmp_path, made.config, net, made.audio_encoder, card="# Tiny\n")
    loaded = load_bundle(tmp_path)
    frames, audio = normal("frames", (1, 2, 3, 64, 64)), normal("audio", (1, 2, 128))
    assert isinstance(loaded.net, TwoStageNet)
    with torch.inference_mode():
        theirs, own = loaded.net(frames, audio), net(frames, audio)
    assert float(own.view.instances.max()) > 0
    assert torch.equal(theirs.view.instances, own.view.instances)
    assert torch.equal(theirs.logits, own.logits)


def test_the_segmenter_writes_object_0_alone() -> None:
    segmenter = open_segmenter(tiny_bundle(), "cpu")
    assert type(segmenter) is UnionSegmenter
    found = list(segmenter.segment(clip(5), 0))
    assert {one.object_id for frame in found for one in frame.masks} == {0}
    for frame in found:
        (union,) = frame.masks
        assert union.category is None
        assert union.mask.shape == (90, 150)
        assert 0 < np.mean(union.mask) < 1
