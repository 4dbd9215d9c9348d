"""The two-stage baseline: first where things are, whatever sounds; then which of them is heard.

Zhou et al., "Audio-Visual Segmentation", ECCV 2022, arXiv 2207.05042, compare TPAVI with it. We know of no code for it.

    B clips, T frames, F = B·T, n instances in a frame, C channels, A numbers in an audio vector, H×W pixels

1.  Instance maps of each frame from Mask R-CNN (He et al., ICCV 2017), frozen in what follows.       (the paper's)
    Its n instances have scores s_i and soft masks m_i in [0, 1], and give one map a frame that does not tell what the
    things are:

        M = max_i s_i m_i,        0 where nothing is found                                                     (ours)

2.  Fusion of the maps with the visual features and the audio.                                        (the paper's)
    At each of four levels, with V its visual map after TPAVI's neck, M̄ the mean of M over each cell, and the audio
    vector a of the frame's second, repeated over the positions,

        Z = conv(relu(conv([norm(V), M̄, norm(W_a a)])))                                                        (ours)

    where both norms bring what is joined to one size, or the sound would drown: V has no norm before. TPAVI's decoder
    and head make logits of the four Z.                                                                        (ours)

The paper takes Mask R-CNN as COCO trained it: `MaskRCNNConfig()` is torchvision's `maskrcnn_resnet50_fpn`, weight by
weight. Ours can be any other, trained on the outlines of composites. Both stages look through one image encoder (ours;
so two stages cost one look). No second knows of another one, and no sound reaches M or V.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch._dynamo.utils import is_compile_supported  # what RoIAlign asks, too
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from avs_core.errors import ConfigError
from avs_core.models.backbones import Backbone, BackboneName, Finest, require_whole_cells, strides_from
from avs_core.models.tpavi import ASPP, Levels, decode, new_decoder, new_head

_RATIOS = (0.5, 1.0, 2.0)
_ROI_CELLS = 7
_MASK_LAYERS = 4
_GROUPS = 8


class MaskRCNNConfig(BaseModel):
    """What stage 1 is made of. The defaults, on a resnet50 with `finest` 4, are torchvision's maskrcnn_resnet50_fpn.

    classes    with the background, 0
    pyramid    channels of the feature pyramid and of the mask head; hidden  width of the box head
    anchors    side of an anchor at each of the five levels, pixels: those of the backbone, and one twice as coarse
    proposals  regions a frame that are looked at closely, twice as many in training; objects  that are kept at most
    sampled    of the regions in training, how many enter the losses
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: int = Field(default=91, ge=2)
    pyramid: int = Field(default=256, ge=1)
    hidden: int = Field(default=1024, ge=1)
    anchors: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512)
    proposals: int = Field(default=1000, ge=1)
    objects: int = Field(default=100, ge=1)
    sampled: int = Field(default=512, ge=2)

    @field_validator("anchors")
    @classmethod
    def _grow(cls, anchors: tuple[int, ...]) -> tuple[int, ...]:
        if anchors[0] < 1 or list(anchors) != sorted(set(anchors)):
            raise ValueError(f"anchors must be positive and grow from level to level, got {anchors}")
        return anchors


class TwoStageConfig(BaseModel):
    """What a TwoStageNet is made of.

    detector  stage 1
    channels  C of the neck, the fusion and the decoder
    finest    stride of the finest map, see Backbone
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneName
    detector: MaskRCNNConfig = MaskRCNNConfig()
    channels: int = Field(default=64, ge=2 * _GROUPS, multiple_of=_GROUPS)
    audio_channels: int = Field(default=128, ge=1)
    finest: Finest = 4

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """Of the four maps, in pixels."""
        return strides_from(self.finest)


@dataclass(frozen=True)
class Target:
    """What stage 1 learns of one frame.

    boxes   x, y of the upper left corner and of the lower right one (exclusive), pixels
    labels  class of each, from 1
    """

    boxes: Float[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    masks: UInt8[Tensor, "n H W"]


@dataclass(frozen=True)
class Instances:
    """What stage 1 found in one frame: scores and soft masks, both in [0, 1]."""

    scores: Float[Tensor, " n"]
    masks: Float[Tensor, "n H W"]


@dataclass(frozen=True)
class Regions:
    """The feature pyramid of F frames on its way through Mask R-CNN: what is found in it, or how wrong that is.

    In float32 even where autocast computes in bfloat16: boxes take their type from what the convolutions say, and
    bfloat16 counts pixels in twos above 256.
    """

    detector: MaskRCNN
    pyramid: dict[str, Float[Tensor, "F P _ _"]]
    images: ImageList

    def losses(self, targets: Sequence[Target]) -> dict[str, Float[Tensor, ""]]:
        """torchvision's five losses, of a detector in train mode. Raises ConfigError, see `require_repeatable`."""
        require_repeatable(self.images.tensors.device)
        wanted = [vars(target) for target in targets]
        with self._exactly():
            proposals, of_proposals = self.detector.rpn(self.images, self.pyramid, wanted)
            _, of_heads = self.detector.roi_heads(self.pyramid, proposals, self.images.image_sizes, wanted)
        return {name.removeprefix("loss_"): loss for name, loss in (of_proposals | of_heads).items()}

    def instances(self) -> list[Instances]:
        """Those of each frame, of a detector in eval mode; the surest first."""
        sizes = self.images.image_sizes
        with self._exactly():
            proposals, _ = self.detector.rpn(self.images, self.pyramid)
            found, _ = self.detector.roi_heads(self.pyramid, proposals, sizes)
            return [
                Instances(one["scores"], paste_masks_in_image(one["masks"], one["boxes"], size)[:, 0])
                for one, size in zip(found, sizes, strict=True)
            ]

    def _exactly(self) -> torch.autocast:
        return torch.autocast(self.images.tensors.device.type, enabled=False)


@dataclass(frozen=True)
class View:
    """Everything a look at the pictures gives; no sound has reached it.

    levels     V of the four levels, finest first
    instances  M
    """

    levels: Levels
    instances: Float[Tensor, "B T H W"]


@dataclass(frozen=True)
class TwoStageOutput:
    """What sounds, and what it was chosen from."""

    logits: Float[Tensor, "B T H W"]
    view: View


class TwoStageNet(nn.Module):
    """Mask R-CNN; neck, fusion and decoder on the maps of its backbone."""

    def __init__(self, config: TwoStageConfig, pretrained: bool = False) -> None:
        """`pretrained` fetches ImageNet weights for the backbone; all else starts at random."""
        super().__init__()
        C = config.channels
        self.config = config
        self.detector = build_mask_rcnn(config, pretrained)
        self.neck = nn.ModuleList(ASPP(channels, C) for channels in self.backbone.channels)
        self.fusion = nn.ModuleList(Fusion(C, config.audio_channels) for _ in self.neck)
        self.decoder, self.head = new_decoder(C), new_head(C, 1)

    @property
    def backbone(self) -> "PyramidBackbone":
        """The one image encoder; its weights are the detector's."""
        encoder = self.detector.backbone
        assert isinstance(encoder, PyramidBackbone), "build_mask_rcnn has put it there"
        return encoder

    def forward(self, frames: Float[Tensor, "B T 3 H W"], audio: Float[Tensor, "B T A"]) -> TwoStageOutput:
        """`frames` are normalised RGB, `audio` one embedding a frame. Raises ConfigError, see `look`."""
        return self.listen(self.look(frames), audio)

    def regions(self, frames: Float[Tensor, "B T 3 H W"]) -> Regions:
        """Stage 1 alone, for its own training. Raises ConfigError, see `look`."""
        images = _whole(frames, self.config)
        return self._regions(self.backbone(images), images)

    def look(self, frames: Float[Tensor, "B T 3 H W"]) -> View:
        """Features and instance maps: one look serves several sounds. Needs the detector in eval mode.

        Raises ConfigError when H or W is not a multiple of the coarsest stride.
        """
        images, clips = _whole(frames, self.config), len(frames)
        maps = self.backbone(images)
        with torch.no_grad():
            found = [instance_map(one) for one in self._regions(maps, images).instances()]
        levels = (neck(x) for neck, x in zip(self.neck, maps, strict=True))
        return View(
            tuple(rearrange(V, "(B T) C H W -> B T C H W", B=clips) for V in levels),
            rearrange(torch.stack(found), "(B T) H W -> B T H W", B=clips),
        )

    def listen(self, view: View, audio: Float[Tensor, "B T A"]) -> TwoStageOutput:
        """What of this sounds in one embedding a frame."""
        M, a = rearrange(view.instances, "B T H W -> (B T) 1 H W"), rearrange(audio, "B T A -> (B T) A")
        levels = [
            fuse(rearrange(V, "B T C H W -> (B T) C H W"), M, a)
            for fuse, V in zip(self.fusion, view.levels, strict=True)
        ]
        logits = decode(levels, self.decoder, self.head, self.config.finest)
        return TwoStageOutput(rearrange(logits, "(B T) 1 H W -> B T H W", B=len(audio)), view)

    def _regions(self, maps: tuple[Float[Tensor, "F _ _ _"], ...], images: Float[Tensor, "F 3 H W"]) -> Regions:
        size = (images.shape[-2], images.shape[-1])
        return Regions(self.detector, self.backbone.pyramid(maps), ImageList(images, [size] * len(images)))


class Fusion(nn.Module):
    """One level of stage 2: what is seen, where things are and what is heard, side by side through two convolutions."""

    def __init__(self, channels: int, audio_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.align = nn.Sequential(nn.Linear(audio_channels, channels), nn.LayerNorm(channels))
        self.fuse = nn.Sequential(
            nn.Conv2d(2 * channels + 1, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(
        self, visual: Float[Tensor, "F C h w"], instances: Float[Tensor, "F 1 H W"], audio: Float[Tensor, "F A"]
    ) -> Float[Tensor, "F C h w"]:
        """Z of V, M and a."""
        h, w = visual.shape[-2:]
        M = F.adaptive_avg_pool2d(instances, (h, w))
        heard = self.align(audio)[..., None, None].expand(-1, -1, h, w)
        Z: Tensor = self.fuse(torch.cat([self.norm(visual), M, heard], 1))
        return Z


class PyramidBackbone(Backbone):
    """Our image encoder with torchvision's feature pyramid on it; weights are called as in torchvision's detectors."""

    def __init__(self, config: TwoStageConfig, pretrained: bool = False) -> None:
        super().__init__(config.backbone, pretrained, config.finest)
        self.out_channels = config.detector.pyramid  # where torchvision's heads look for it
        self.fpn = FeaturePyramidNetwork([*self.channels], self.out_channels, extra_blocks=LastLevelMaxPool())

    def pyramid(self, maps: tuple[Float[Tensor, "F _ _ _"], ...]) -> dict[str, Float[Tensor, "F P _ _"]]:
        """The four maps with P channels each, and a fifth of half the size, under torchvision's names, in float32."""
        named: dict[str, Tensor] = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(maps)))
        return {name: level.float() for name, level in named.items()}


def build_mask_rcnn(config: TwoStageConfig, pretrained: bool = False) -> MaskRCNN:
    """torchvision's Mask R-CNN, untrained, around a PyramidBackbone.

    Its `transform`, which would resize and normalise, is gone: frames come normalised, at the size that the net sees.
    """
    made, encoder = config.detector, PyramidBackbone(config, pretrained)
    # bundles are built on the meta device; anchors are no weights, so no file would fill them
    with torch.device("cpu"):
        anchors = AnchorGenerator(tuple((side,) for side in made.anchors), (_RATIOS,) * len(made.anchors))
    detector = MaskRCNN(
        encoder,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=2 * made.proposals,
        rpn_post_nms_top_n_train=2 * made.proposals,
        rpn_pre_nms_top_n_test=made.proposals,
        rpn_post_nms_top_n_test=made.proposals,
        rpn_batch_size_per_image=made.sampled // 2,
        box_head=TwoMLPHead(made.pyramid * _ROI_CELLS**2, made.hidden),
        box_predictor=FastRCNNPredictor(made.hidden, made.classes),
        box_batch_size_per_image=made.sampled,
        box_detections_per_img=made.objects,
        mask_head=MaskRCNNHeads(made.pyramid, (made.pyramid,) * _MASK_LAYERS, dilation=1),
        mask_predictor=MaskRCNNPredictor(made.pyramid, made.pyramid, made.classes),
    )
    detector.transform = nn.Identity()
    return detector


def require_repeatable(device: torch.device) -> None:
    """Raises ConfigError where training must repeat bit for bit on a GPU and the gradient of RoIAlign can't.

    torchvision's own kernel does not; what it compiles in its place does, and needs Triton.
    """
    if device.type == "cuda" and torch.are_deterministic_algorithms_enabled() and not is_compile_supported("cuda"):
        raise ConfigError(
            "a GPU repeats Mask R-CNN's training bit for bit only with Triton, which is not here: install it, or leave "
            "out --deterministic"
        )


def instance_map(found: Instances) -> Float[Tensor, "H W"]:
    """M = max_i s_i m_i, and 0 where nothing was found."""
    weighted = found.scores[:, None, None] * found.masks
    nothing = weighted.new_zeros(1, *weighted.shape[1:])
    return torch.cat([nothing, weighted]).amax(0)


def _whole(frames: Float[Tensor, "B T 3 H W"], config: TwoStageConfig) -> Float[Tensor, "F 3 H W"]:
    """The frames one by one. Raises ConfigError where the coarsest map would have half a cell."""
    require_whole_cells(frames.shape[-2], frames.shape[-1], config.strides[-1])
    return rearrange(frames, "B T c H W -> (B T) c H W")
