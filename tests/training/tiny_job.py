"""A training of a second or two: which pixels are redder than they are blue. For every engine, and for child processes.

python tests/training/tiny_job.py OUT '{"steps": 20, …}' '{"workers": "2", …}'     the job, the config
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avs_core.training.data import Batch
from avs_core.training.loop import LoopConfig

CLIPS = 4
"""In a global batch."""


PLACE: dict[str, int] = {}
"""Which batch this process is at."""


@dataclass(frozen=True)
class Point:
    """A line of a curve: the loss of one process on its share of a global batch."""

    step: int
    rank: int
    world: int
    clips: int
    pid: int
    loss: float


def curve(path: Path) -> list[Point]:
    """The whole lines that are there."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [Point(**json.loads(line)) for line in lines]


def global_losses(points: list[Point]) -> dict[int, float]:
    """Step → mean loss of the global batch, where all its shares are there; the last one where it was repeated."""
    losses: dict[int, float] = {}
    shares: dict[tuple[int, int], dict[int, Point]] = {}
    for point in points:
        found = shares.setdefault((point.step, point.world), {})
        found[point.rank] = point
        if len(found) == point.world:
            losses[point.step] = sum(one.loss * one.clips for one in found.values()) / CLIPS
    return losses


def clips(number: int, start: int = 0, stop: int = CLIPS) -> Batch:
    """Some of the clips of global batch `number`: one second of 8 × 8 pixels each."""
    drawn = torch.randint(0, 256, (CLIPS, 1, 8, 8, 3), generator=torch.Generator().manual_seed(number))
    frames = drawn[start:stop].byte()
    return Batch(
        frames=frames,
        sound=torch.zeros(len(frames), 1, 1, 96, 64),
        masks=frames[..., 0] > frames[..., 2],
        labelled=torch.ones(len(frames), 1, dtype=torch.bool),
    )


class Colours(nn.Module):
    """A logit a pixel from its colour. No loss uses `idle` and what `spare` answers, as recipes leave out parts too."""

    def __init__(self, norm: bool, dropout: float) -> None:
        super().__init__()
        self.hidden, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)
        self.norm, self.drop = nn.BatchNorm2d(4) if norm else nn.Identity(), nn.Dropout2d(dropout)
        self.idle, self.spare = nn.Linear(2, 2), nn.Conv2d(1, 1, 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, H, W, 3) → twice (B, H, W), of the first second."""
        colours = frames[:, 0].permute(0, 3, 1, 2).float() / 255
        logits: Tensor = self.out(self.drop(torch.relu(self.norm(self.hidden(colours)))))
        return logits[:, 0], self.spare(logits)[:, 0]


@dataclass(frozen=True)
class TinyJob:
    """As `TrainingJob` has it.

    norm, dropout  what the model has
    pause_s        how long a step takes at least, so that it can be disturbed
    nan_at         step whose loss is not a number
    curve          file that gets a line a step from each process, see `curve`
    crosses        what it says of its loss, which pairs no clips
    """

    loop: LoopConfig
    name: str = "tiny"
    norm: bool = True
    dropout: float = 0.0
    pause_s: float = 0.0
    nan_at: int | None = None
    curve: str | None = None
    crosses: bool = False

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Colours(self.norm, self.dropout)

    def batches(self, start: int, rank: int, world: int) -> Iterator[Batch]:
        for number in range(start, self.loop.steps):
            time.sleep(self.pause_s)
            batch = clips(number, CLIPS * rank // world, CLIPS * (rank + 1) // world)
            if number == self.nan_at:
                batch.sound.fill_(torch.nan)
            PLACE.update(step=number, rank=rank, world=world, clips=len(batch.frames), pid=os.getpid())
            yield batch

    def loss(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        bce = F.binary_cross_entropy_with_logits(model(batch.frames)[0].float(), batch.masks[:, 0].float())
        if self.curve is not None:
            with Path(self.curve).open("a") as file:
                file.write(json.dumps(PLACE | {"loss": float(bce.detach())}) + "\n")
        return {"bce": bce + batch.sound.mean()}

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        wanted = clips(10_000)
        found, masks = model(wanted.frames)[0] > 0, wanted.masks[:, 0]
        return {"miou": float((found & masks).sum() / (found | masks).sum()), "rows": float(len(masks))}

    def samples(self, model: nn.Module) -> Mapping[str, bytes]:
        return {"answer.png": b"\x89PNG"}

    def finish(self, model: nn.Module, out: Path) -> Path | None:
        (out / "bundle").mkdir()
        (out / "bundle" / "figures.json").write_text(json.dumps(dict(self.validate(model))))
        return out / "bundle"


def main() -> None:
    """Train as the command line says; the last line of standard output is what came of it."""
    from avs_core.errors import AvsError
    from avs_core.pipelines.train import train_jobs
    from avs_core.pipelines.train_config import TrainConfig

    out, job, config = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    loop = LoopConfig.model_validate(job.pop("loop"))
    try:
        finished = train_jobs([TinyJob(loop, **job)], TrainConfig(out=out, **config), {"recipe": "test"})
    except AvsError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    for done in finished:
        print(json.dumps({"step": done.step, "metrics": dict(done.metrics)}))


if __name__ == "__main__":
    main()
