"""Bundles survive a round trip and refuse what doesn't fit."""

import copy
import hashlib
import json
from pathlib import Path

import pytest
import torch
from parity.generate import normal, uniform
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from avs_core.errors import BundleError
from avs_core.models import bundle as bundles
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import (
    BundleConfig,
    load_bundle,
    save_bundle,
)
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareNet
from avs_core.models.tpavi import TPAVIConfig, TPAVINet

TPAVI = TPAVIConfig(backbone="tf_efficientnet_lite0", channels=16, inner=8)
CONFIG = BundleConfig(name="tiny", tpavi=TPAVI, audio_encoder="audio_cnn", size=64, metrics={"miou": 0.5})


@pytest.fixture(scope="module")
def parts() -> tuple[TPAVINet, AudioCNN]:
    torch.manual_seed(0)
    return TPAVINet(TPAVI).eval(), AudioCNN().eval()


@pytest.fixture
def folder(tmp_path: Path, parts: tuple[TPAVINet, AudioCNN]) -> Path:
    save_bundle(tmp_path / "tiny", CONFIG, *parts, card="# Tiny\n", categories=("dog", "cello"))
    return tmp_path / "tiny"


def test_round_trip(folder: Path, parts: tuple[TPAVINet, AudioCNN]) -> None:
    loaded = load_bundle(folder)
    assert loaded.config == CONFIG
    assert loaded.categories == ("dog", "cello")
    assert loaded.weights_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert not loaded.net.training
    assert not loaded.audio_encoder.training
    frames, mel = normal("frames", (1, 2, 3, 64, 64)), normal("mel", (2, 1, 96, 64))
    with torch.inference_mode():
        for net, encoder in (parts, (loaded.net, loaded.audio_encoder)):
            logits = net(frames, encoder(mel)[None]).logits
            assert torch.equal(logits, parts[0](frames, parts[1](mel)[None]).logits)


@pytest.mark.slow
def test_what_swin_does_not_save_is_computed_anew(tmp_path: Path) -> None:
    """The places in its windows are no weights, and a net is loaded without being built twice."""
    torch.manual_seed(0)
    made = InstanceAwareConfig(
        backbone="swin_base_patch4_window7_224", categories=1, queries=4, learnt=1, channels=8, heads=2, layers=1
    )
    net = InstanceAwareNet(made).eval()
    config = BundleConfig(name="swin", arch="instance_aware", instance_aware=made, audio_encoder="audio_cnn", size=64)
    save_bundle(tmp_path, config, net, AudioCNN(), "", ("a",))
    loaded, frames, audio = load_bundle(tmp_path).net, normal("frames", (1, 1, 3, 64, 64)), torch.zeros(1, 1, 128)
    with torch.inference_mode():
        assert torch.equal(loaded(frames, audio).logits, net(frames, audio).logits)


def test_same_weights_same_bytes(folder: Path, tmp_path: Path, parts: tuple[TPAVINet, AudioCNN]) -> None:
    sha256 = save_bundle(tmp_path / "again", CONFIG, *parts, card="")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert sha256 == load_bundle(folder).weights_sha256


def test_half_precision_is_loaded_as_single(tmp_path: Path, parts: tuple[TPAVINet, AudioCNN]) -> None:
    save_bundle(tmp_path, CONFIG.model_copy(update={"stored_as": "fp16"}), *parts, card="")
    loaded = load_bundle(tmp_path.as_uri())
    for (name, ours), theirs in zip(loaded.net.state_dict().items(), parts[0].state_dict().values(), strict=True):
        assert ours.dtype == theirs.dtype, name
        expected = theirs.half().float() if theirs.is_floating_point() else theirs
        assert torch.equal(ours, expected), name


def test_what_half_precision_cannot_hold_stays_single(tmp_path: Path, parts: tuple[TPAVINet, AudioCNN]) -> None:
    net, encoder = copy.deepcopy(parts[0]), parts[1]
    net.tpavi["0"].bn.running_var.fill_(2e9)  # as training leaves it
    save_bundle(tmp_path, CONFIG.model_copy(update={"stored_as": "fp16"}), net, encoder, card="")
    assert torch.equal(load_bundle(tmp_path).net.tpavi["0"].bn.running_var, net.tpavi["0"].bn.running_var)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, parts: tuple[TPAVINet, AudioCNN]) -> None:
    net = copy.deepcopy(parts[0])
    net.tpavi["0"].bn.running_var.fill_(torch.inf)
    save_bundle(tmp_path, CONFIG, net, parts[1], card="")
    with pytest.raises(BundleError, match=r"finite.*tpavi\.0\.bn\.running_var"):
        load_bundle(tmp_path)


def test_a_built_in_name_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "BUILTIN", folder.parent)
    assert load_bundle("tiny").config == CONFIG
    with pytest.raises(BundleError, match=r"no config\.json\. Built-in bundles: tiny"):
        load_bundle("tinny")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "categories.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"has no {name}"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", "not tensors", "not a safetensors file"),
        ("config.json", "{", "not a bundle config"),
        ("config.json", json.dumps({"name": "x"}), "audio_encoder"),
        ("categories.json", "[1]", "list of names"),
        ("categories.json", "[", "not JSON"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_weights_that_do_not_fit_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["net.extra"] = torch.zeros(1)
    weights["net.head.4.bias"] = torch.zeros(2)
    del weights["audio.embedding.bias"]
    save_file(weights, path)
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    for part in ("1 missing: audio.embedding.bias", "1 unknown: net.extra", "net.head.4.bias (2,) instead of (1,)"):
        assert part in str(caught.value)


def test_save_refuses_networks_that_are_not_the_config(tmp_path: Path, parts: tuple[TPAVINet, AudioCNN]) -> None:
    other = CONFIG.model_copy(update={"tpavi": TPAVI.model_copy(update={"channels": 32})})
    with pytest.raises(BundleError, match="config says"):
        save_bundle(tmp_path, other, *parts, card="")
    with pytest.raises(BundleError, match="config says vggish"):
        save_bundle(tmp_path, CONFIG.model_copy(update={"audio_encoder": "vggish"}), *parts, card="")
    assert not list(tmp_path.iterdir())


def test_an_instance_aware_bundle_survives_and_needs_a_name_for_each_category(tmp_path: Path) -> None:
    net = InstanceAwareNet(
        InstanceAwareConfig(backbone="tf_efficientnet_lite0", categories=2, queries=4, learnt=1, channels=16, finest=8)
    ).eval()
    config = BundleConfig(
        name="tiny", arch="instance_aware", instance_aware=net.config, audio_encoder="audio_cnn", size=64
    )
    save_bundle(tmp_path, config, net, AudioCNN(), card="# Tiny\n", categories=("dog", "cello"))
    loaded = load_bundle(tmp_path)
    frames, audio = normal("frames", (1, 2, 3, 64, 64)), uniform("audio", (1, 2, 128))
    with torch.inference_mode():
        assert torch.equal(loaded.net(frames, audio).logits, net(frames, audio).logits)
    with pytest.raises(BundleError, match="2 categories need as many names, got 1"):
        save_bundle(tmp_path / "other", config, net, AudioCNN(), card="", categories=("dog",))
    (tmp_path / "categories.json").write_text('["dog"]')
    with pytest.raises(BundleError, match=r"names 1 categories, config\.json says 2"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("arch", [{}, {"arch": "instance_aware", "tpavi": TPAVI}])
def test_the_config_describes_its_own_net_and_no_other(arch: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="needs a section of that name and no other"):
        BundleConfig.model_validate({"name": "x", "audio_encoder": "audio_cnn"} | arch)


@pytest.mark.parametrize("wrong", [{"size": 100}, {"threshold": 1.0}, {"name": "A b"}, {"window_s": 0}, {"colour": 1}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BundleConfig.model_validate(CONFIG.model_dump() | wrong)


def test_the_size_is_of_whole_cells_of_the_coarsest_map() -> None:
    coarse = CONFIG.model_dump() | {"tpavi": CONFIG.tpavi.model_dump() | {"finest": 8}}
    assert BundleConfig.model_validate(coarse | {"size": 320}).size == 320
    with pytest.raises(ValidationError, match="multiple of the coarsest stride, 64, got 96"):
        BundleConfig.model_validate(coarse | {"size": 96})


def test_a_loaded_net_can_be_trained_further(folder: Path) -> None:
    net = load_bundle(folder).net.train()
    net(normal("frames", (1, 2, 3, 64, 64)), uniform("audio", (1, 2, 128))).logits.mean().backward()
    assert all(p.grad is not None for p in net.parameters())
