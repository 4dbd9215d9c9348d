"""Model bundles: a folder with everything inference needs.

    <bundle>/model.safetensors   weights of the net (`net.…`) and of the audio encoder (`audio.…`)
             config.json         a BundleConfig
             categories.json     a list of names; empty for a model that only says "this sounds"
             card.md             what it was trained on, what it measured, what it can't do

No pickle is ever executed: bundles are safetensors.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from torch import Tensor, nn

from avs_core import storage
from avs_core.audio import Alignment
from avs_core.errors import BundleError, NotFound
from avs_core.models.audio_encoders import find_audio_encoder
from avs_core.models.calibration import Calibration
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareNet
from avs_core.models.tpavi import TPAVIConfig, TPAVINet
from avs_core.models.two_stage import TwoStageConfig, TwoStageNet
from avs_core.models.weights import complaint, fill, some

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
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


class BundleConfig(BaseModel):
    """Everything but the weights that decides what a bundle answers.

    arch        which of the nets it is; the section of that name says what it is made of, the others are None
    audio_encoder  see avs_core.models.audio_encoders; a bundle with another package's needs that package
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
    audio_encoder: str
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
        given, wanted = find_audio_encoder(self.audio_encoder).embedding, self.net.audio_channels
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


def build_audio_encoder(name: str) -> nn.Module:
    """An untrained audio encoder, (N, …) → (N, A). Raises BundleError for a name that none has."""
    return find_audio_encoder(name).kind()


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
    if not isinstance(audio_encoder, find_audio_encoder(config.audio_encoder).kind):
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
    wrong = complaint(parts.state_dict(), tensors)
    if wrong:
        raise BundleError(f"{root}/{WEIGHTS} does not fit {CONFIG}: {wrong}")
    broken = sorted(key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all()))
    if broken:
        raise BundleError(f"{root}/{WEIGHTS}: weights must be finite, these are not: {some(broken)}; save it anew")
    fill(parts, tensors)
    return Bundle(config, categories, net.eval(), encoder.eval(), hashlib.sha256(weights).hexdigest())


def read_card(uri_or_name: str | Path) -> tuple[str, BundleConfig]:
    """The card (Markdown) and the settings of a bundle, without its weights."""
    root = _locate(str(uri_or_name))
    return _read(root, CARD).decode(), _parse_config(root, _read(root, CONFIG))


def is_builtin(name: str) -> bool:
    """Whether a bundle of this name comes with the package."""
    return bool(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name)) and (BUILTIN / name / CONFIG).exists()


def _locate(uri_or_name: str) -> str:
    """The folder of a built-in bundle, or the URI as it is."""
    return str(BUILTIN / uri_or_name) if is_builtin(uri_or_name) else uri_or_name


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
