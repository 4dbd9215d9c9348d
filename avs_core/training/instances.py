"""The instance-aware model in training: what it is given of a batch, and what is minimised in each of its two stages.

A  sight         the queries of each frame against the objects that are known, sounding or all      (`SightObjective`)
B  correlation   the lit mask against all that sounds; only the ear learns                    (`CorrelationObjective`)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from avs_core.errors import ConfigError
from avs_core.models.bundle import load_bundle
from avs_core.models.correlation import Proposals, correlate
from avs_core.models.instance_aware import InstanceAwareNet, InstanceAwareOutput, Sight
from avs_core.models.segmenter import objects
from avs_core.query_losses import (
    DOUBT,
    UNNAMED,
    Given,
    SilentAware,
    cell_loss,
    correlation_loss,
    crossed_loss,
    share_on_given,
    sight_loss,
)
from avs_core.training.data import Batch
from avs_core.training.network import Answer, Normalisation, Trainee, embed
from avs_core.training.objectives import naming_loss

Stage = Literal["sight", "correlation"]
Known = Literal["sounding", "all"]

_UNKNOWN = -1
"""A teacher's category that the student does not have."""

MIN_AREA = 0.002
"""Share of the picture below which an object is not asked for."""


class InstanceTrainee(Trainee):
    """Net and audio encoder. Stage A learns all behind the backbone, or with it (`tuned`), stage B the ear alone.

    An audio encoder that was trained elsewhere, on more recordings than these, stays as it is: `learned`.
    """

    net: InstanceAwareNet

    def __init__(
        self,
        net: InstanceAwareNet,
        audio_encoder: nn.Module,
        normalise: Normalisation,
        stage: Stage = "correlation",
        learned: bool = False,
        tuned: bool = False,
    ) -> None:
        sight = [part for part in net.children() if part is not net.hearing]
        frozen = sight
        if stage == "sight":
            frozen = [net.hearing, audio_encoder] if tuned else [net.backbone, net.hearing, audio_encoder]
        frozen += [part for part, known in ((net.known, True), (audio_encoder, learned)) if part is not None and known]
        super().__init__(net, audio_encoder, normalise, frozen)
        net.learnt.requires_grad_(stage == "sight")

    def forward(self, frames: UInt8[Tensor, "B T H W 3"] | None, sound: Float[Tensor, "B T ..."]) -> Answer:
        """Masks; without frames the logits of what is heard."""
        audio = embed(self.audio_encoder, sound)
        if frames is None:
            return Answer(None, self.net.hearing(audio))
        masks = self.net.listen(self._look(frames), audio)
        return Answer(masks, masks.heard)

    def _look(self, frames: UInt8[Tensor, "B T H W 3"]) -> Sight:
        """Of pictures that come with several sounds each is looked at once."""
        pictures, which = torch.unique(frames, dim=0, return_inverse=True)
        if len(pictures) == len(frames):
            return self.net.look(self.normalise(frames))
        sight = self.net.look(self.normalise(pictures))
        layers = tuple(Proposals(layer.classes[which], layer.masks[which]) for layer in sight.layers)
        return Sight(sight.cells[which], layers)


@dataclass(frozen=True)
class Teacher:
    """A frozen segmenter whose proposals stand for the objects that nobody tells of: those of a bundle.

    A proposal counts if it names a category that the student has with more than ½ and less than ½ of it lies on what
    is given.

    categories  of the student; those of the bundle are found among them by their names
    """

    bundle: str
    categories: tuple[str, ...]

    @cached_property
    def _loaded(self) -> tuple[InstanceAwareNet, Normalisation, Int64[Tensor, " K"]]:
        bundle = load_bundle(self.bundle)
        if not isinstance(bundle.net, InstanceAwareNet):
            raise ConfigError(f"proposals come from an instance-aware bundle, {self.bundle} is {bundle.config.arch}")
        places = {name: place for place, name in enumerate(self.categories)}
        own = torch.tensor([places.get(name, _UNKNOWN) for name in bundle.categories])
        return bundle.net, Normalisation(bundle.config.mean, bundle.config.std), own

    def __getstate__(self) -> dict[str, Any]:
        return {"bundle": self.bundle, "categories": self.categories}

    @torch.no_grad()
    def __call__(self, batch: Batch, given: Sequence[Given], most: int) -> list[Given]:
        """At most `most` objects of each frame, the surest proposals among them. Raises BundleError, ConfigError."""
        net, normalise, own = self._loaded
        device = batch.frames.device
        seen = net.to(device).look(normalise(batch.frames)).proposals
        frames = zip(seen.probabilities.flatten(0, 1), seen.masks.flatten(0, 1), given, strict=True)
        return [self._joined(p.float(), masks.float(), one, own.to(device), most) for p, masks, one in frames]

    def _joined(
        self,
        p: Float[Tensor, "N K"],
        masks: Float[Tensor, "N h w"],
        known: Given,
        own: Int64[Tensor, " K"],
        most: int,
    ) -> Given:
        at = objects(p, masks)
        best, kinds = p[at].max(1)
        sure = (best > DOUBT) & (own[kinds] != _UNKNOWN)
        at, kinds = at[sure], own[kinds][sure]
        lit = (masks[at] > 0).float()
        if not len(at):
            return known
        size = known.masks.shape[-2:]
        lit = F.interpolate(lit[None], (size[0], size[1]), mode="bilinear", align_corners=False)[0]
        apart = (share_on_given(lit, known) < DOUBT).nonzero()[: max(0, most - len(known.kinds)), 0]
        return Given(torch.cat([known.kinds, kinds[apart]]), torch.cat([known.masks, lit[apart]]))


@dataclass(frozen=True)
class SightObjective:
    """Stage A. Every layer of the decoder answers for its own proposals.

    known    whether all objects that the data tells of are given, or those alone that sound
    silent   what becomes of queries that may be silent objects, see avs_core.query_losses
    teacher  whose proposals are given too, for `silent` "pseudo"
    named    whether the data say of what category an object is; else it is only something, whatever the net calls it
    """

    known: Known = "sounding"
    silent: SilentAware = "ignore"
    teacher: Teacher | None = None
    named: bool = True
    crosses = False

    def __call__(self, answer: Answer, batch: Batch) -> dict[str, Tensor]:
        """{"cells", "class", "mask", "dice"}. Raises ConfigError for data without objects."""
        sight = _output(answer).sight
        finest = sight.proposals.masks.shape[-2:]
        frames = given(batch, self.known, (finest[0], finest[1]))
        if not self.named:
            frames = [Given(torch.full_like(one.kinds, UNNAMED), one.masks) for one in frames]
        if self.teacher is not None:
            frames = self.teacher(batch, frames, sight.proposals.classes.shape[2])
        labelled = batch.labelled.flatten()
        frames = [one for one, wanted in zip(frames, labelled.tolist(), strict=True) if wanted]
        terms = {"cells": cell_loss(sight.cells.flatten(0, 1)[labelled].float(), frames, self.silent)}
        layers = [self._of(layer, labelled, frames) for layer in sight.layers]
        return terms | {name: torch.stack([layer[name] for layer in layers]).mean() for name in layers[0]}

    def _of(self, layer: Proposals, labelled: Tensor, frames: list[Given]) -> dict[str, Tensor]:
        classes, masks = layer.classes.flatten(0, 1)[labelled], layer.masks.flatten(0, 1)[labelled]
        return sight_loss(classes.float(), masks.float(), frames, self.silent)


@dataclass(frozen=True)
class CorrelationObjective:
    """Stage B.

    crossed  whether every picture of a batch is given every sound of it too: a clip's own sound tells of two or three
             categories, and a net that hears no others learns nothing about the rest
    known    the objects that crossed pictures are asked for. Where the data tell of "sounding" ones alone, nothing is
             asked of the rest of a picture under the sound of another one: a silent object may well be what it names
    naming   weight of the BCE of what is heard where the data says it: 0 is the paper's, which never supervises it
    """

    crossed: bool = False
    known: Known = "all"
    naming: float = 0.0

    @property
    def crosses(self) -> bool:
        """See Objective."""
        return self.crossed

    def __call__(self, answer: Answer, batch: Batch) -> dict[str, Tensor]:
        """{"bce", "dice"}, or {"lit", "dark"} of crossed clips, and {"naming"} on request.

        Raises ConfigError for data that does not tell what it needs.
        """
        masks = _output(answer)
        if self.crossed:
            terms = crossed_loss(*crossed(masks, batch, self.known))
        else:
            terms = correlation_loss(masks.logits[batch.labelled].float(), batch.masks[batch.labelled])
        if self.naming:
            terms["naming"] = self.naming * naming_loss(masks.heard.float(), batch)
        return terms


def crossed(
    answer: InstanceAwareOutput, batch: Batch, known: Known = "all"
) -> tuple[Float[Tensor, "P h w"], Float[Tensor, "P h w"], Float[Tensor, "P h w"]]:
    """Every labelled picture under every labelled sound: logits of M, what these n² clips light, what counts. (ours)

    A clip composed of picture i and sound j lights the objects of i whose category is heard in j; with its own
    sound, i = j, it lights what it says itself. An object whose category may be heard in j or not does not count.
    Raises ConfigError for data that does not tell of objects or sounds.
    """
    if batch.heard is None:
        raise ConfigError("pictures are crossed with sounds whose categories are known, and this data set tells none")
    labelled, found = batch.labelled.flatten(), answer.sight.proposals
    n, (h, w) = int(labelled.sum()), found.masks.shape[-2:]
    classes, masks = found.classes.flatten(0, 1)[labelled], found.masks.flatten(0, 1)[labelled]
    heard = answer.heard.flatten(0, 1)[labelled]
    pictures = Proposals(
        classes[:, None].expand(-1, n, -1, -1).flatten(0, 1)[:, None],
        masks[:, None].expand(-1, n, -1, -1, -1).flatten(0, 1)[:, None],
    )
    logits, _ = correlate(pictures, heard.repeat(n, 1)[:, None], "instances")
    objects = [one for one, wanted in zip(given(batch, known, (h, w)), labelled.tolist(), strict=True) if wanted]
    sounds = batch.heard.flatten(0, 1)[labelled]
    target = torch.stack([_lit(one, sounds, (h, w)) for one in objects])
    own = torch.arange(n)
    target[own, own] = F.adaptive_avg_pool2d(batch.masks.flatten(0, 1)[labelled].float(), (h, w))
    something = 1 - classes.float().softmax(-1)[..., -1]
    seen = (something[..., None, None] * torch.sigmoid(masks.float())).amax(1)
    asked = seen[:, None].repeat(1, n, 1, 1)
    if batch.unsure is not None:
        unsure = batch.unsure.flatten(0, 1)[labelled]
        doubted = torch.stack([_lit(one, unsure, (h, w)) for one in objects])
        # nothing that is heard off-screen is in the picture too
        doubted[own, own] = 0
        asked = asked * (1 - doubted)
    if known == "sounding":
        told = torch.stack([one.masks.sum(0).clamp(max=1) for one in objects])[:, None].repeat(1, n, 1, 1)
        told[own, own] = 1
        asked = asked * told
    return logits[:, 0], target.flatten(0, 1), asked.flatten(0, 1)


def _lit(picture: Given, sounds: Bool[Tensor, "F K"], size: tuple[int, int]) -> Float[Tensor, "F h w"]:
    """What each sound lights of a picture."""
    if not len(picture.kinds):
        return torch.zeros(len(sounds), *size, device=sounds.device)
    return (sounds[:, picture.kinds, None, None] * picture.masks).amax(1)


def given(batch: Batch, known: Known, size: tuple[int, int]) -> list[Given]:
    """The objects of each of the B · T frames, as shares of a map's positions. Raises ConfigError without objects."""
    if batch.outlines is None or batch.kinds is None:
        raise ConfigError("this stage learns from single objects, and this data set does not tell them apart")
    frames = zip(batch.outlines.flatten(0, 1), batch.kinds.flatten(0, 1), batch.masks.flatten(0, 1), strict=True)
    return [_of_frame(outline, kinds, lit, known, size) for outline, kinds, lit in frames]


def _of_frame(outline: Tensor, kinds: Tensor, lit: Tensor, known: Known, size: tuple[int, int]) -> Given:
    numbers = torch.arange(1, len(kinds) + 1, device=outline.device, dtype=outline.dtype)
    objects = outline == numbers[:, None, None]
    area = objects.flatten(1).float().mean(1)
    wanted = area > MIN_AREA
    if known == "sounding":
        wanted &= (objects & lit).flatten(1).float().mean(1) > DOUBT * area
    masks = F.adaptive_avg_pool2d(objects[wanted].float(), size) if wanted.any() else torch.zeros(0, *size)
    return Given(kinds[wanted], masks.to(outline.device))


def _output(answer: Answer) -> InstanceAwareOutput:
    assert isinstance(answer.masks, InstanceAwareOutput), "an InstanceTrainee was given frames"
    return answer.masks
