"""Held-out clips of a run: the figure that chooses its best weights, pictures of what it says, its last figures."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from PIL import Image
from torch import Tensor

from avs_core.audio import Alignment
from avs_core.datasets.labelled import ClipRef, LabelledClip, LabelledSet
from avs_core.evaluation.predict import Predict
from avs_core.metrics import frame_ious
from avs_core.training.evaluation import Evaluation, evaluate, labelled_logits, truth
from avs_core.training.network import Trainee


@dataclass(frozen=True)
class HeldOut:
    """Splits of a labelled set, as the bundle will see them.

    size, alignment, window_s  of the bundle
    clips                      at most that many of a split, spread evenly over it; None = all
    """

    data: LabelledSet
    size: int
    alignment: Alignment
    window_s: int
    clips: int | None = None

    def refs(self, split: str) -> tuple[ClipRef, ...]:
        """The clips of a split that are looked at. Raises TrainingError for a split without clips."""
        refs = self.data.clips(split)
        if self.clips is None or len(refs) <= self.clips:
            return refs
        return tuple(refs[i] for i in np.linspace(0, len(refs) - 1, self.clips).round().astype(int))

    def load(self, split: str) -> Iterator[LabelledClip]:
        """Each clip, decoded."""
        return (self.data.load(ref, self.size, self.alignment) for ref in self.refs(split))

    def validate(self, trainee: Trainee) -> dict[str, float]:
        """{"miou"} on val: M_J over all labelled frames at 0.5, or over the classes that the trainee answers with.

        The published code means over batches of 4 clips instead, which is the same where they are full.
        """
        predict = predictor(trainee)
        answers: Iterator[tuple[Tensor, LabelledClip]] = (
            (labelled_logits(predict, clip, torch.from_numpy(clip.sound), self.window_s), clip)
            for clip in self.load("val")
        )
        with torch.inference_mode():
            first = next(answers)
            answers = chain([first], answers)
            if first[0].ndim == 4:
                return {"miou": _class_miou(answers)}
            return {"miou": float(torch.cat([frame_ious(logits, truth(clip)) for logits, clip in answers]).mean())}

    def measure(self, trainee: Trainee, split: str) -> Evaluation:
        """With its own sound, with none, with a wrong one."""
        return evaluate(predictor(trainee), self.load(split), self.window_s)

    def samples(self, trainee: Trainee, clips: int = 4) -> dict[str, bytes]:
        """PNG of the first clips of val: the pictures, the truth, the probability, one column a second."""
        predict, found = predictor(trainee), {}
        with torch.inference_mode():
            for ref in self.refs("val")[:clips]:
                clip = self.data.load(ref, self.size, self.alignment)
                logits = labelled_logits(predict, clip, torch.from_numpy(clip.sound), self.window_s)
                found[f"{ref.setting}-{ref.clip_id}.png"] = _png(_sheet(clip, logits))
        return found


def predictor(trainee: Trainee) -> Predict:
    """What a trainee in eval mode answers, on whatever device it is."""
    device = next(trainee.parameters()).device

    def predict(frames: UInt8[Tensor, "1 T H W 3"], sound: Float32[Tensor, "1 T ..."]) -> Float[Tensor, "1 T *K H W"]:
        masks = trainee(frames.to(device), sound.to(device)).masks
        logits: Tensor = masks.logits.float().cpu()
        return logits

    return predict


def _class_miou(answers: Iterator[tuple[Tensor, LabelledClip]]) -> float:
    """Per class the mean IoU over the frames that show or are said to show it; the mean over all classes, 0 unseen."""
    total = count = torch.zeros(0)
    for logits, clip in answers:
        assert clip.labels is not None, "an AVSS set has classes"
        classes, wanted = logits.shape[1], torch.from_numpy(clip.labels[clip.labelled])
        if not len(count):
            total, count = torch.zeros(classes), torch.zeros(classes)
        for frame, labels in zip(logits.argmax(1), wanted, strict=True):
            both, either = _overlaps(frame, labels, classes)
            total += both / either.clamp(min=1)
            count += either > 0
    return float((total / count.clamp(min=1)).mean())


def _overlaps(
    said: Int64[Tensor, "H W"], wanted: Int64[Tensor, "H W"], classes: int
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Pixels in the intersection and in the union of each class."""
    counts = [torch.bincount(x.flatten(), minlength=classes).float() for x in (said[said == wanted], said, wanted)]
    return counts[0], counts[1] + counts[2] - counts[0]


def _sheet(clip: LabelledClip, logits: Float[Tensor, "L *K H W"]) -> UInt8[np.ndarray, "h w 3"]:
    """Three rows: pictures, truth, answer."""
    lit = 1 - logits.softmax(1)[:, 0] if logits.ndim == 4 else torch.sigmoid(logits)
    grey = [clip.masks[clip.labelled] * 255.0, lit.numpy() * 255]
    rows = [clip.frames[clip.labelled], *(np.repeat(row.astype(np.uint8)[..., None], 3, -1) for row in grey)]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def _png(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
