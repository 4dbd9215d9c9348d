"""The two-stage baseline in training: what each stage learns, and what stage 1 is told.

instances  Mask R-CNN behind its frozen backbone, from every object of a picture, sounding or silent
fusion     neck, fusion, decoder and audio encoder, from the masks of what sounds; Mask R-CNN is frozen
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.ops import masks_to_boxes

from avs_core.models.tpavi import Levels
from avs_core.models.two_stage import Regions, Target, TwoStageNet, TwoStageOutput
from avs_core.query_losses import Given
from avs_core.training.data import Batch
from avs_core.training.instances import given
from avs_core.training.network import Answer, NamingTrainee, Normalisation

Stage = Literal["instances", "fusion"]

THING = 1
"""The one class of stage 1 beside the background: where things are, not what they are."""


class TwoStageTrainee(NamingTrainee):
    """Net, audio encoder and heads, in one of the two stages. Without frames it names what it hears in either."""

    net: TwoStageNet

    def __init__(
        self,
        net: TwoStageNet,
        audio_encoder: nn.Module,
        normalise: Normalisation,
        categories: int | None,
        stage: Stage = "fusion",
    ) -> None:
        behind = [part for part in net.children() if part is not net.detector]
        frozen = [net.detector] if stage == "fusion" else [net.backbone.body, *behind, audio_encoder]
        super().__init__(net, audio_encoder, normalise, categories, frozen)
        self._stage = stage

    def forward(self, frames: UInt8[Tensor, "B T H W 3"] | None, sound: Float[Tensor, "B T ..."]) -> Answer:
        """Regions in stage 1; in stage 2 masks, and what the two heads say."""
        if self._stage == "instances" and frames is not None:
            return Answer(self.net.regions(self.normalise(frames)))
        return super().forward(frames, sound)

    def _masks(
        self, frames: Float[Tensor, "B T 3 H W"], audio: Float[Tensor, "B T A"]
    ) -> tuple[TwoStageOutput, Levels]:
        view = self.net.look(frames)
        return self.net.listen(view, audio), view.levels


@dataclass(frozen=True)
class InstanceObjective:
    """Stage 1: Mask R-CNN's own losses, summed as torchvision does."""

    crosses = False

    def __call__(self, answer: Answer, batch: Batch) -> dict[str, Tensor]:
        """{"objectness", "rpn_box_reg", "classifier", "box_reg", "mask"}. Raises ConfigError for data without objects.

        Composites outline their objects in every second, labelled or not.
        """
        assert isinstance(answer.masks, Regions), "a TwoStageTrainee in stage 1 was given frames"
        return answer.masks.losses(targets(batch))


def targets(batch: Batch) -> list[Target]:
    """All objects of each of the B · T frames. Raises ConfigError without objects."""
    H, W = batch.masks.shape[-2:]
    return [_target(one) for one in given(batch, "all", (H, W))]


def _target(objects: Given) -> Target:
    masks = objects.masks > 0.5
    boxes = masks_to_boxes(masks)
    # torchvision's box ends at the last pixel, ours after it, so that no box is empty
    boxes[:, 2:] += 1
    return Target(boxes, torch.full_like(objects.kinds, THING), masks.byte())
