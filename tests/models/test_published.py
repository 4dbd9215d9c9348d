"""Published checkpoints become bundles, or it is said why not."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from parity.generate import state_dict, uniform
from torch import Tensor

from avs_core.errors import CheckpointMismatch, ConfigError
from avs_core.models import published
from avs_core.models.audio_encoders import BUILT_IN, AudioEncoder
from avs_core.models.bundle import load_bundle, read_card
from avs_core.models.published import import_bundle, import_published, load_published
from avs_core.models.tpavi import TPAVINet
from avs_core.models.vggish import VGGish


@pytest.fixture(scope="module")
def resnet() -> dict[str, Tensor]:
    return state_dict("ms3_resnet_keys.json")


def test_unknown_and_missing_weights_are_refused_by_name(resnet: dict[str, Tensor]) -> None:
    broken = resnet | {"resnet.layer5.0.conv1.weight": torch.zeros(1), "output_conv.4.bias": torch.zeros(71)}
    del broken["tpavi_b2.theta.weight"], broken["conv1.conv2d_list.3.bias"]
    with pytest.raises(CheckpointMismatch) as caught:
        import_published(broken, "resnet50", "ms3")
    for name in ("resnet.layer5.0.conv1.weight", "output_conv.4.bias (71,) instead of (1,)", "tpavi_b2.theta.weight"):
        assert name in str(caught.value)
    assert "conv1.conv2d_list.3.bias" in str(caught.value)


def test_the_wrong_backbone_or_setting_is_refused(resnet: dict[str, Tensor]) -> None:
    pvt = {"encoder_backbone.norm4.weight": torch.ones(512)}
    with pytest.raises(CheckpointMismatch, match=r"resnet50 checkpoint for s4: .*encoder_backbone\.norm4\.weight"):
        import_published(pvt, "resnet50", "s4")
    with pytest.raises(CheckpointMismatch, match=r"1 unknown|unknown: tpavi_b1\.align_channel\.bias"):
        import_published(resnet, "resnet50", "avss")
    with pytest.raises(ConfigError, match="no checkpoint was published"):
        import_published(resnet, "tf_efficientnet_lite0", "s4")


def test_dead_weights_counters_and_prefixes_do_not_matter(resnet: dict[str, Tensor]) -> None:
    live = {f"module.{k}": v for k, v in resnet.items() if "_2." not in k and not k.startswith("path4.resConfUnit1")}
    live = {k: v for k, v in live.items() if not k.endswith("num_batches_tracked")}
    live["module.resnet.fc.weight"] = torch.zeros(1000, 2048)
    whole, bare = (import_published(weights, "resnet50", "s4").state_dict() for weights in (resnet, live))
    assert all(torch.equal(whole[name], bare[name]) for name in whole)


def test_avss_has_71_classes_and_no_audio_bias(resnet: dict[str, Tensor]) -> None:
    semantic = {k: v for k, v in resnet.items() if not k.endswith("align_channel.bias")}
    semantic |= {"output_conv.4.weight": torch.zeros(71, 32, 1, 1), "output_conv.4.bias": torch.arange(71.0)}
    net = import_published(semantic, "resnet50", "avss")
    with torch.inference_mode():
        logits = net(torch.zeros(1, 1, 3, 32, 32), uniform("audio", (1, 1, 128))).logits
    assert logits.shape == (1, 1, 71, 32, 32)
    assert torch.equal(logits[0, 0, :, 0, 0], torch.arange(71.0))


def test_pth_files_are_read_without_executing_them(tmp_path: Path, resnet: dict[str, Tensor]) -> None:
    good, evil, text = tmp_path / "good.pth", tmp_path / "evil.pth", tmp_path / "text.pth"
    torch.save(OrderedDict(resnet), good)
    assert isinstance(load_published(good, "resnet50", "ms3"), TPAVINet)
    torch.save({"weights": Path("anything but a tensor")}, evil)
    text.write_text("hello")
    for path in (evil, text, tmp_path / "absent.pth"):
        with pytest.raises(CheckpointMismatch, match="not a readable PyTorch checkpoint"):
            load_published(path, "resnet50", "ms3")
    torch.save({"epoch": 3, "model": dict(resnet)}, evil)
    with pytest.raises(CheckpointMismatch, match="bare state dicts"):
        load_published(evil, "resnet50", "ms3")


def test_published_files_become_a_bundle(
    tmp_path: Path, resnet: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(VGGish):
        """Its last layer alone: half a gigabyte of weights would say no more."""

        def __init__(self) -> None:
            super().__init__()
            self.features, self.embeddings = torch.nn.Sequential(), self.embeddings[4:5]

    monkeypatch.setattr(published, "VGGish", Small)
    monkeypatch.setitem(BUILT_IN, "vggish", AudioEncoder(Small, 128))
    torch.save(resnet, tmp_path / "net.pth")
    torch.save(Small().state_dict(), tmp_path / "vggish.pth")
    sha256 = import_bundle(tmp_path / "out", tmp_path / "net.pth", tmp_path / "vggish.pth", "resnet50", "s4")
    loaded = load_bundle(tmp_path / "out")
    assert loaded.weights_sha256 == sha256
    assert (loaded.config.alignment, loaded.config.audio_encoder) == ("official", "vggish")
    assert torch.equal(loaded.net.head[4].weight, resnet["output_conv.4.weight"])
    card, config = read_card(tmp_path / "out")
    assert "net.pth" in card
    assert config == loaded.config
    with pytest.raises(CheckpointMismatch, match="is not VGGish"):
        import_bundle(tmp_path / "out", tmp_path / "net.pth", tmp_path / "net.pth", "resnet50", "s4")
