"""The published runs with their own networks, on tiny trees: what goes in, what a step moves, what they leave."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from avs_core.datasets.opening import open_dataset
from avs_core.errors import CheckpointMismatch
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.backbones import BackboneName, build_backbone
from avs_core.models.bundle import BundleConfig, load_bundle, save_bundle
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.models.vggish import VGGish
from avs_core.recipes import find_recipe
from avs_core.tracking import NullRun
from avs_core.training.engine import Alone
from avs_core.training.initialise import LITE0, load_backbone, load_vggish, start_from
from avs_core.training.materials import Materials
from avs_core.training.network import Trainee
from avs_core.training.published import PublishedRecipe
from avs_core.training.train import train
from tests.avsbench_fixtures import write_ms3, write_s4
from tests.training.conftest import TINY_NET


def saved(module: torch.nn.Module, path: Path) -> str:
    torch.save(module.state_dict(), path)
    return str(path)


def test_a_classifier_of_timm_fills_the_backbone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    classifier = timm.create_model(LITE0, pretrained=False)
    backbone = build_backbone("tf_efficientnet_lite0")
    load_backbone(backbone.body, saved(classifier, tmp_path / "lite0.pth"))
    for name, value in backbone.body.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("resnet50", marks=pytest.mark.ci_slice), "pvt_v2_b5"])
def test_published_backbones_are_filled_from_files_of_timm(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    classifier = timm.create_model(name, pretrained=False).eval()
    backbone = build_backbone(name).eval()
    load_backbone(backbone.body, saved(classifier, tmp_path / "weights.pth"))
    frames = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = classifier.forward_features(frames)
        torch.testing.assert_close(backbone(frames)[-1], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "made"),
    [("resnet50", torchvision.models.resnet50), ("swin_base_patch4_window7_224", torchvision.models.swin_b)],
)
def test_backbones_are_filled_from_files_of_torchvision(
    name: BackboneName, made: Callable[[], torch.nn.Module], tmp_path: Path
) -> None:
    """torchvision's own forward pass is the oracle; at 224 pixels Swin's windows fill its maps, nothing is padded."""
    torch.manual_seed(1)
    classifier, path = made().eval(), tmp_path / "weights.safetensors"
    safetensors.torch.save_file(classifier.state_dict(), path)
    backbone = build_backbone(name).eval()
    load_backbone(backbone.body, str(path))
    frames = torch.rand(1, 3, 224, 224)
    nodes = [f"layer{i}" for i in range(1, 5)] if name == "resnet50" else [f"features.{i}" for i in (1, 3, 5, 7)]
    with torch.inference_mode():
        wanted = create_feature_extractor(classifier, nodes)(frames)
        for node, found in zip(nodes, backbone(frames), strict=True):
            theirs = wanted[node] if name == "resnet50" else wanted[node].permute(0, 3, 1, 2)
            torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-4)


def test_a_broken_file_of_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointMismatch, match="is no file of weights"):
        load_backbone(build_backbone("tf_efficientnet_lite0").body, str(path))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = saved(torch.nn.Linear(2, 2), tmp_path / "linear.pth")
    with pytest.raises(CheckpointMismatch, match="not of this backbone"):
        load_backbone(build_backbone("tf_efficientnet_lite0").body, path)
    with pytest.raises(CheckpointMismatch, match="is not VGGish"):
        load_vggish(path)


def test_a_bundle_is_a_start_and_another_net_is_none(tmp_path: Path) -> None:
    torch.manual_seed(2)
    one, other = TPAVINet(TINY_NET), TPAVINet(TINY_NET)
    config = BundleConfig(name="s4", tpavi=TINY_NET, audio_encoder="audio_cnn")
    save_bundle(tmp_path, config, one, AudioCNN(), "card")
    start_from(other, str(tmp_path))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    with pytest.raises(CheckpointMismatch, match="not of the net"):
        start_from(TPAVINet(TINY_NET.model_copy(update={"stages": (0,)})), str(tmp_path))


@pytest.mark.slow
def test_s4_then_ms3_from_it(tmp_path: Path) -> None:
    """Real ResNet-50 and VGGish with random weights, small frames; MS3 starts from what S4 left."""
    vggish = saved(VGGish(), tmp_path / "vggish.pth")
    body = saved(timm.create_model("resnet50", pretrained=False), tmp_path / "r50.pth")
    s4 = small("s4-r50")
    data = open_dataset(str(write_s4(tmp_path / "s4")), "s4")
    (job,) = s4.jobs(Materials(data=data, vggish=vggish, backbone=body, steps=2, workers=0))
    before = {name: value.clone() for name, value in job.model().state_dict().items()}
    done = train(job, Alone("cpu"), str(tmp_path / "out"), NullRun(), tmp_path / "scratch")
    assert done.left is not None
    bundle = load_bundle(done.left)
    assert (bundle.config.audio_encoder, bundle.config.alignment, bundle.config.threshold) == (
        "vggish",
        "official",
        0.5,
    )
    assert bundle.config.tpavi == TPAVIConfig(backbone="resnet50")
    assert set(bundle.config.metrics) == {"val_miou"}
    moved = {name for name, value in bundle.net.state_dict().items() if not torch.equal(value, before[f"net.{name}"])}
    assert any(name.startswith("backbone") for name in moved)
    assert any(name.startswith("tpavi") for name in moved)
    for name, value in bundle.audio_encoder.state_dict().items():
        assert torch.equal(value, before[f"audio_encoder.{name}"]), name

    ms3 = replace(small("ms3-r50"), from_s4=True)
    data = open_dataset(str(write_ms3(tmp_path / "ms3")), "ms3")
    (job,) = ms3.jobs(Materials(data=data, vggish=vggish, init=str(done.left), steps=2, workers=0))
    start = job.model()
    assert isinstance(start, Trainee)
    for name, value in bundle.net.state_dict().items():
        assert torch.equal(value, start.net.state_dict()[name]), name
    terms = job.loss(start.train(), next(job.batches(0, 0, 1)))
    assert set(terms) == {"bce", "avm"}
    assert all(bool(torch.isfinite(term)) for term in terms.values())


def small(name: str) -> PublishedRecipe:
    recipe = find_recipe(name)
    assert isinstance(recipe, PublishedRecipe)
    return replace(recipe, feed=replace(recipe.feed, size=64))
