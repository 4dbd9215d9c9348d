"""Model bundles: a folder with everything inference needs, and the import of the published checkpoints.

    <bundle>/model.safetensors   weights of the net (`net.…`) and of the audio encoder (`audio.…`)
             config.json         a BundleConfig
             categories.json     a list of names; empty for a model that only says "this sounds"
             card.md             what it was trained on, what it measured, what it can't do

No pickle is ever executed: bundles are safetensors, and published `.pth` files are read with `weights_only=True`.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, cast, get_args

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from torch import Tensor, nn

from avs_core import storage
from avs_core.audio import Alignment
from avs_core.errors import BundleError, CheckpointMismatch, ConfigError, NotFound
from avs_core.models import audio_cnn, vggish, yamnet
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.backbones import DEAD_WEIGHTS, BackboneName, published_backbone_key
from avs_core.models.calibration import Calibration
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareNet
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.models.two_stage import TwoStageConfig, TwoStageNet
from avs_core.models.vggish import VGGish
from avs_core.models.yamnet import YAMNet

AudioEncoderName = Literal["vggish", "audio_cnn", "yamnet"]
Setting = Literal["s4", "ms3", "avss"]
Arch = Literal["tpavi", "instance_aware", "two_stage"]
Net = TPAVINet | InstanceAwareNet | TwoStageNet
NetConfig = TPAVIConfig | InstanceAwareConfig | TwoStageConfig

BUILTIN = Path(__file__).parents[1] / "builtin" / "bundles"
WEIGHTS, CONFIG, CATEGORIES, CARD = "model.safetensors", "config.json", "categories.json", "card.md"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
AVSS_CLASSES = 71

_NETS: dict[type[NetConfig], type[Any]] = {
    TPAVIConfig: TPAVINet,
    InstanceAwareConfig: InstanceAwareNet,
    TwoStageConfig: TwoStageNet,
}
_AUDIO_ENCODERS: dict[AudioEncoderName, type[nn.Module]] = {
    "vggish": VGGish,
    "audio_cnn": AudioCNN,
    "yamnet": YAMNet,
}
_EMBEDDINGS: dict[AudioEncoderName, int] = {
    "vggish": vggish.EMBEDDING,
    "audio_cnn": audio_cnn.EMBEDDING,
    "yamnet": yamnet.EMBEDDING,
}
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}

# The coarsest fusion has nothing to skip from, yet the published checkpoints carry weights for it.
_DEAD_SKIP = r"path4\.resConfUnit1\."
_PUBLISHED_NAMES = (
    (r"neck\.(?P<level>\d)\.branches", "conv{level}.conv2d_list"),
    (r"decoder\.(?P<level>\d)\.rcu(?P<part>\d)", "path{level}.resConfUnit{part}"),
    (r"tpavi\.(?P<level>\d)\.align", "tpavi_b{level}.align_channel"),
    (r"tpavi\.(?P<level>\d)\.norm", "tpavi_b{level}.norm_layer"),
    (r"tpavi\.(?P<level>\d)\.W_z", "tpavi_b{level}.W_z.0"),
    (r"tpavi\.(?P<level>\d)\.bn", "tpavi_b{level}.W_z.1"),
    (r"tpavi\.(?P<level>\d)", "tpavi_b{level}"),
)


class BundleConfig(BaseModel):
    """Everything but the weights that decides what a bundle answers.

    arch        which of the nets it is; the section of that name says what it is made of, the others are None
    size        side of the square frames the net sees, in pixels: a multiple of the net's coarsest stride
    mean, std   per RGB channel, of values scaled to [0, 1]
    alignment   where the sound of second k is taken: see avs_core.audio.window_examples
    window_s    T: how many consecutive seconds the net sees together
    threshold   on the probability, above which a pixel sounds
    calibration of the sounding scores of objects, chosen on val as the threshold is; None = as the net gives them
    stored_as   number format of the file; computation is always in float32
    trained_on, metrics, limits   the card in a few words, for `avs models info`
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    arch: Arch = "tpavi"
    tpavi: TPAVIConfig | None = None
    instance_aware: InstanceAwareConfig | None = None
    two_stage: TwoStageConfig | None = None
    audio_encoder: AudioEncoderName
    size: int = Field(default=224, ge=32)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    alignment: Alignment = "aligned"
    window_s: int = Field(default=5, ge=1)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    calibration: Calibration | None = None
    stored_as: Literal["fp32", "fp16"] = "fp32"
    trained_on: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    limits: str = ""

    @property
    def net(self) -> NetConfig:
        """What the net is made of."""
        found = self.tpavi or self.instance_aware or self.two_stage
        assert found is not None, "the validator has seen to it"
        return found

    @model_validator(mode="after")
    def _describes_its_net(self) -> "BundleConfig":
        described = [name for name in get_args(Arch) if getattr(self, name) is not None]
        if described != [self.arch]:
            raise ValueError(f"arch {self.arch} needs a section of that name and no other, got {described}")
        return self

    @model_validator(mode="after")
    def _encoder_fits(self) -> "BundleConfig":
        given, wanted = _EMBEDDINGS[self.audio_encoder], self.net.audio_channels
        if given != wanted:
            raise ValueError(f"{self.audio_encoder} gives {given} numbers, {self.arch}.audio_channels is {wanted}")
        return self

    @model_validator(mode="after")
    def _size_fits(self) -> "BundleConfig":
        coarsest = self.net.strides[-1]
        if self.size % coarsest:
            raise ValueError(f"size must be a multiple of the coarsest stride, {coarsest}, got {self.size}")
        return self


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: both networks in eval mode, float32, on the CPU."""

    config: BundleConfig
    categories: tuple[str, ...]
    net: Net
    audio_encoder: nn.Module
    weights_sha256: str


def build_audio_encoder(name: AudioEncoderName) -> nn.Module:
    """An untrained audio encoder, (N, 1, 96, 64) → (N, 128), or (N, 1024) for yamnet."""
    return _AUDIO_ENCODERS[name]()


def build_net(config: NetConfig) -> Net:
    """An untrained net."""
    net: Net = _NETS[type(config)](config)
    return net


def save_bundle(
    folder: Path,
    config: BundleConfig,
    net: Net,
    audio_encoder: nn.Module,
    card: str,
    categories: Sequence[str] = (),
) -> str:
    """Write a bundle into `folder` (made if missing); returns the sha256 of the weights file.

    Same weights, same bytes. Raises BundleError when the networks are not what `config` describes.
    """
    if net.config != config.net:
        raise BundleError(f"the net is {net.config}, but the bundle's config says {config.net}")
    if config.instance_aware is not None and len(categories) != config.instance_aware.categories:
        raise BundleError(f"{config.instance_aware.categories} categories need as many names, got {len(categories)}")
    if not isinstance(audio_encoder, _AUDIO_ENCODERS[config.audio_encoder]):
        raise BundleError(
            f"the audio encoder is a {type(audio_encoder).__name__}, the config says {config.audio_encoder}"
        )
    weights = safetensors.torch.save(_pack(net, audio_encoder, _DTYPES[config.stored_as]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CONFIG).write_text(config.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    (folder / CATEGORIES).write_text(json.dumps(list(categories), indent=1) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")
    return hashlib.sha256(weights).hexdigest()


def load_bundle(uri_or_name: str | Path) -> Bundle:
    """Load a built-in bundle by name, or one from a local folder or a URI that `avs_core.storage` opens.

    Raises BundleError when a file is missing, damaged, or disagrees with the others.
    """
    root = _locate(str(uri_or_name))
    config = _parse_config(root, _read(root, CONFIG))
    categories = _parse_categories(root, _read(root, CATEGORIES))
    if config.instance_aware is not None and len(categories) != config.instance_aware.categories:
        raise BundleError(
            f"{root}/{CATEGORIES} names {len(categories)} categories, {CONFIG} says {config.instance_aware.categories}"
        )
    weights = _read(root, WEIGHTS)
    try:
        tensors = safetensors.torch.load(weights)
    except SafetensorError as fault:
        raise BundleError(f"{root}/{WEIGHTS} is not a safetensors file: {fault}; copy the bundle again") from fault
    with torch.device("meta"):
        net, encoder = build_net(config.net), build_audio_encoder(config.audio_encoder)
    parts = nn.ModuleDict({"net": net, "audio": encoder})
    complaint = _complaint(parts.state_dict(), tensors)
    if complaint:
        raise BundleError(f"{root}/{WEIGHTS} does not fit {CONFIG}: {complaint}")
    broken = sorted(key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all()))
    if broken:
        raise BundleError(f"{root}/{WEIGHTS}: weights must be finite, these are not: {_some(broken)}; save it anew")
    _fill(parts, tensors)
    return Bundle(config, categories, net.eval(), encoder.eval(), hashlib.sha256(weights).hexdigest())


def import_published(
    state_dict: Mapping[str, Tensor], backbone: BackboneName = "pvt_v2_b5", setting: Setting = "ms3"
) -> TPAVINet:
    """A published state dict (S4, MS3 or AVSS; PVT-v2-b5 or ResNet-50) as a TPAVINet in eval mode.

    Published weights that no forward pass reads (classifier heads, the ResNet's second branch, the skip unit of
    the coarsest fusion) are left out. Raises CheckpointMismatch that names unknown, missing or misshapen weights.
    """
    if backbone not in DEAD_WEIGHTS:
        raise ConfigError(f"no checkpoint was published for {backbone}; choose one of {sorted(DEAD_WEIGHTS)}")
    semantic = setting == "avss"
    with torch.device("meta"):
        net = TPAVINet(TPAVIConfig(backbone=backbone, audio_bias=not semantic, classes=AVSS_CLASSES if semantic else 1))
    # DataParallel checkpoints carry a prefix on every key.
    bare = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    dead = re.compile(f"{DEAD_WEIGHTS[backbone]}|{_DEAD_SKIP}")
    alive = {name: tensor for name, tensor in bare.items() if not dead.match(name)}
    published = {_published_name(key, backbone): key for key in net.state_dict()}
    complaint = _complaint({name: net.state_dict()[key] for name, key in published.items()}, alive, squeeze=True)
    if complaint:
        raise CheckpointMismatch(f"not a published {backbone} checkpoint for {setting}: {complaint}")
    _fill(net, {published[name]: tensor for name, tensor in alive.items()})
    return net.eval()


def load_published(path: Path, backbone: BackboneName = "pvt_v2_b5", setting: Setting = "ms3") -> TPAVINet:
    """`import_published` of a `.pth` file. Nothing in the file is executed."""
    return import_published(_read_checkpoint(path), backbone, setting)


def import_bundle(
    folder: Path,
    checkpoint: Path,
    vggish: Path,
    backbone: BackboneName = "pvt_v2_b5",
    setting: Setting = "ms3",
) -> str:
    """Write a published checkpoint and the VGGish weights it was trained with as a bundle; returns the weights' sha256.

    Raises CheckpointMismatch when a file is not the one it is said to be.
    """
    net = load_published(checkpoint, backbone, setting)
    weights = _read_checkpoint(vggish)
    with torch.device("meta"):
        encoder = VGGish()
    complaint = _complaint(encoder.state_dict(), weights)
    if complaint:
        raise CheckpointMismatch(f"{vggish} is not VGGish: {complaint}")
    _fill(encoder, weights)
    name = f"tpavi-{backbone}-{setting}"
    trained_on = f"AVSBench {setting.upper()}, by the authors of arXiv 2207.05042"
    config = BundleConfig(
        name=name, tpavi=net.config, audio_encoder="vggish", alignment="official", trained_on=trained_on
    )
    card = (
        f"# {name}\n\nThe published TPAVI checkpoint `{checkpoint.name}`, trained on {trained_on}, "
        f"with the VGGish weights `{vggish.name}`. Imported as it is; see the paper for its figures.\n"
    )
    return save_bundle(folder, config, net, encoder, card)


def read_card(uri_or_name: str | Path) -> tuple[str, BundleConfig]:
    """The card (Markdown) and the settings of a bundle, without its weights."""
    root = _locate(str(uri_or_name))
    return _read(root, CARD).decode(), _parse_config(root, _read(root, CONFIG))


def _read_checkpoint(path: Path) -> Mapping[str, Tensor]:
    """The state dict of a `.pth` file."""
    try:
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    # A file that is no checkpoint at all trips PyTorch's restricted unpickler over a byte it doesn't know.
    except (OSError, RuntimeError, EOFError, UnpicklingError, LookupError, ValueError) as fault:
        raise CheckpointMismatch(f"{path} is not a readable PyTorch checkpoint: {fault}") from fault
    if not isinstance(state_dict, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state_dict.values()):
        raise CheckpointMismatch(f"{path} holds no state dict of tensors; published files are bare state dicts")
    return state_dict


def _published_name(key: str, backbone: BackboneName) -> str:
    """What the published code calls our weight `key`."""
    if key.startswith("backbone.body."):
        return published_backbone_key(backbone, key.removeprefix("backbone.body."))
    for pattern, template in _PUBLISHED_NAMES:
        found = re.match(pattern, key)
        if found:
            # The published code counts the levels from 1.
            level = int(found["level"]) + 1
            return template.format(level=level, part=found.groupdict().get("part")) + key[found.end() :]
    return key.replace("head.", "output_conv.")


def _complaint(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], squeeze: bool = False) -> str:
    """Which weights are missing, unknown or misshapen, by name; "" when all fits.

    Batch-norm step counters may be missing. `squeeze` lets 1×1×1 convolutions stand for linear maps.
    """
    missing = [k for k in expected if k not in found and not k.endswith("num_batches_tracked")]
    unknown = [k for k in found if k not in expected]
    misshapen = [
        f"{k} {tuple(found[k].shape)} instead of {tuple(expected[k].shape)}"
        for k in expected
        if k in found and _shape(found[k], squeeze) != _shape(expected[k], squeeze)
    ]
    parts = (("missing", missing), ("unknown", unknown), ("misshapen", misshapen))
    return "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in parts if names)


def _shape(tensor: Tensor, squeeze: bool) -> tuple[int, ...]:
    """The shape, without the trailing 1×1×1 of a pointwise 3-D convolution if `squeeze`."""
    shape = tuple(tensor.shape)
    return shape[:2] if squeeze and len(shape) == 5 and shape[2:] == (1, 1, 1) else shape


def _fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give checked weights to a module built on the meta device, where nothing was drawn only to be thrown away."""
    own = module.state_dict()
    filled = {k: v.to(own[k].dtype, copy=True).reshape(own[k].shape) for k, v in tensors.items()}
    counters = {k: torch.zeros_like(v, device="cpu") for k, v in own.items() if k not in filled}
    module.load_state_dict(filled | counters, assign=True)
    # What a state dict leaves out, such as the places in Swin's windows, timm computes anew.
    for owner in module.modules():
        unsaved = [name for name, buffer in owner.named_buffers(recurse=False) if buffer.is_meta]
        for name in unsaved:
            setattr(owner, name, torch.empty_like(owner.get_buffer(name), device="cpu"))
        if unsaved:
            cast(Any, owner).init_non_persistent_buffers()


def _some(names: Sequence[str], limit: int = 8) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _locate(uri_or_name: str) -> str:
    """The folder of a built-in bundle, or the URI as it is."""
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]*", uri_or_name) and (BUILTIN / uri_or_name / CONFIG).exists():
        return str(BUILTIN / uri_or_name)
    return uri_or_name


def _read(root: str, name: str) -> bytes:
    """One file of a bundle."""
    try:
        return storage.read_bytes(storage.join(root, name))
    except NotFound as fault:
        builtin = sorted(path.parent.name for path in BUILTIN.glob(f"*/{CONFIG}"))
        raise BundleError(
            f"a bundle is a folder with {WEIGHTS}, {CONFIG} and {CATEGORIES}; {root} has no {name}. "
            f"Built-in bundles: {', '.join(builtin) or 'none'}"
        ) from fault


def _parse_config(root: str, raw: bytes) -> BundleConfig:
    try:
        return BundleConfig.model_validate_json(raw)
    except ValidationError as fault:
        raise BundleError(f"{root}/{CONFIG} is not a bundle config: {fault}") from fault


def _parse_categories(root: str, raw: bytes) -> tuple[str, ...]:
    try:
        names = json.loads(raw)
    except ValueError as fault:
        raise BundleError(f"{root}/{CATEGORIES} is not JSON: {fault}") from fault
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BundleError(f"{root}/{CATEGORIES} must be a list of names, got {str(names)[:80]}")
    return tuple(names)


def _pack(net: nn.Module, audio_encoder: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """All weights under their bundle names; floating point numbers in `dtype`, where it can hold them.

    Half precision ends at 65504, and the variances that TPAVI's batch norm has seen do not.
    """
    weights = {
        f"{part}.{k}": v for part, m in (("net", net), ("audio", audio_encoder)) for k, v in m.state_dict().items()
    }
    return {k: _rounded(v, dtype).cpu().contiguous() for k, v in weights.items()}


def _rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in `dtype`, or as it is where that would make a number infinite or it holds no real numbers."""
    rounded = value.to(dtype) if value.is_floating_point() else value
    return rounded if bool(torch.isfinite(rounded).all()) else value
