"""A mask archive against ground truth, without a model.

A video of the archive is the clip whose id is the stem of its file name (`videos/ms3/test/ms3_test_00001.mp4` →
ms3_test_00001). The answer for second t is object 0, everything that sounds, in the frame of that second that was
looked at nearest to t + 0.9375 s, when the labelled frame is shown. Masks lie in the archive at the size of the video;
each is brought to the truth's square by its nearest pixels. A mask is a yes or no, so its F is the same at every
threshold.

A clip whose video is dead, or a second that holds no frame, is an answer that marks nothing. A clip whose video the
archive has never seen is in no figure, and is named.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avs_core import masks
from avs_core.archive.held import looks_with
from avs_core.archive.read import dead_letters, open_archive, open_frames, resolve_run, runs
from avs_core.datasets.labelled import ClipRef, LabelledSet
from avs_core.errors import DataError, InputError
from avs_core.evaluation.examine import ClipResult, Report, chosen, make_report
from avs_core.evaluation.scores import score_clip
from avs_core.masks import Rle

TRUTH_SIZE = 224
"""Side of the frames of the published evaluation, pixels."""

SHOWN_US = 937_500
"""When in its second the labelled frame is shown, microseconds."""

_SURE = 20.0
"""Logit of a pixel that an archive marks; its negative elsewhere."""


@dataclass(frozen=True)
class _Frame:
    """How far from the labelled frame a frame lies that was looked at, and what was found in it."""

    off_us: int
    rle: Rle | None


class ArchiveAnswers:
    """What one run of an archive says of the clips of a data set, by clip id."""

    def __init__(self, uri: str, run: str | None = None, clips: Iterable[str] | None = None) -> None:
        """Reads the rows of these clips (default: of all). Raises InputError for what is no archive, DataError for two
        videos of one name.
        """
        key = resolve_run(uri, run)
        self.model = runs(uri)[key].model
        wanted = None if clips is None else set(clips)
        self._dead = {_stem(row) for row in dead_letters(uri, key).to_pylist()}
        self._frames: dict[str, dict[int, _Frame]] = defaultdict(dict)
        found, names = self._masks(uri, key), dict[str, str]()
        columns = ["video_uri", "frame_time_us", "second", "phase", "n_instances"]
        looked = (
            open_frames(uri, key).to_table(columns=columns).sort_by([("second", "ascending"), ("phase", "ascending")])
        )
        rows = looked.to_pylist()
        answers = _in_turn(rows, found)
        for row, rle in zip(rows, answers, strict=True):
            name = _stem(row)
            if names.setdefault(name, row["video_uri"]) != row["video_uri"]:
                raise DataError(
                    f"a clip is found by the name of its video, and the archive has two of the name {name}: "
                    f"{names[name]} and {row['video_uri']}; segment the videos of one split alone"
                )
            if wanted is None or name in wanted:
                self._add(name, row, rle)

    def knows(self, clip_id: str) -> bool:
        """Whether the archive has seen the clip's video, alive or dead."""
        return clip_id in self._frames or clip_id in self._dead

    def answered(self, clip_id: str) -> bool:
        """Whether any second of it was looked at."""
        return clip_id in self._frames

    def logits(self, ref: ClipRef, size: int) -> Float[Tensor, "T H W"]:
        """±20 for each pixel of each second, at size × size."""
        marked = np.zeros((ref.seconds, size, size), bool)
        for second, frame in self._frames.get(ref.clip_id, {}).items():
            if second < ref.seconds and frame.rle is not None:
                marked[second] = squeezed(masks.decode(frame.rle) != 0, size)
        return torch.where(torch.from_numpy(marked), _SURE, -_SURE)

    def _masks(self, uri: str, run: str) -> dict[tuple[str, int], list[Rle]]:
        """Object 0 of each frame that has one, by video and frame time.

        A frame that is shown through several seconds has one for each in which something sounds, in their order.
        """
        columns = ["video_uri", "frame_time_us", "counts", "height", "width"]
        rows = open_archive(uri, run).to_table(columns=columns, filter=pc.field("object_id") == 0).to_pylist()
        found: dict[tuple[str, int], list[Rle]] = defaultdict(list)
        for row in rows:
            mask = masks.from_row(row["counts"], row["height"], row["width"])
            found[row["video_uri"], row["frame_time_us"]].append(mask)
        return found

    def _add(self, name: str, row: dict[str, Any], rle: Rle | None) -> None:
        second, time_us = row["second"], row["frame_time_us"]
        frame = _Frame(abs(time_us - second * 1_000_000 - SHOWN_US), rle)
        best = self._frames[name].get(second)
        if best is None or frame.off_us < best.off_us:
            self._frames[name][second] = frame


def _in_turn(looks: list[dict[str, Any]], found: dict[tuple[str, int], list[Rle]]) -> list[Rle | None]:
    """Object 0 of each look, in their order; see avs_core.archive.held for several looks at one frame."""
    at: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, row in enumerate(looks):
        at[row["video_uri"], row["frame_time_us"]].append(place)
    answers: list[Rle | None] = [None] * len(looks)
    for frame, masks_of in found.items():
        places = at[frame]
        lit = looks_with([looks[place]["n_instances"] for place in places], len(masks_of))
        for which, rle in zip(lit, masks_of, strict=False):
            answers[places[which]] = rle
    return answers


def evaluate_archive(
    uri: str, data: LabelledSet, split: str, run: str | None = None, limit: int | None = None, seed: int = 0
) -> Report:
    """Score the masks of an archive's run against a split. See the module for what is compared with what.

    Raises InputError when the archive holds none of the split's clips.
    """
    refs = chosen(data, split, limit)
    answers = ArchiveAnswers(uri, run, (ref.clip_id for ref in refs))
    known = [ref for ref in refs if answers.knows(ref.clip_id)]
    if not known:
        raise InputError(
            f"the videos of the archive must be named after the clips; {uri} holds none of the {len(refs)} of {split} "
            f"in {data.name}, such as {refs[0].clip_id}: segment them first"
        )
    results = (_score(place, ref, answers, data) for place, ref in enumerate(known))
    missing = [ref.clip_id for ref in refs if not answers.knows(ref.clip_id)]
    return make_report(f"{answers.model} in {uri}", 0.5, data, split, results, seed, missing)


def squeezed(mask: Bool[np.ndarray, "H W"], size: int) -> Bool[np.ndarray, "size size"]:
    """The mask at size × size: each pixel takes the value of the nearest one, by the middles of pixels."""
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in mask.shape)
    found: Bool[np.ndarray, "size size"] = mask[rows][:, columns]
    return found


def _score(place: int, ref: ClipRef, answers: ArchiveAnswers, data: LabelledSet) -> ClipResult:
    clip = data.load(ref, TRUTH_SIZE)
    logits = answers.logits(ref, TRUTH_SIZE)
    return ClipResult(score_clip(place, clip, logits, 0.5, answers.answered(ref.clip_id)), None)


def _stem(row: dict[str, Any]) -> str:
    """The file name of a row's video without its last extension."""
    name: str = row["video_uri"].rpartition("/")[2]
    return name.rpartition(".")[0] or name
