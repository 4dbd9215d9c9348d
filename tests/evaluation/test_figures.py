"""Figures from clips' scores, against the metrics themselves and against naive counts."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from avs_core.datasets.labelled import ClipRef, LabelledClip
from avs_core.errors import TrainingError
from avs_core.evaluation.figures import grouped, intervals, official, official_classes, overall
from avs_core.evaluation.scores import ClipScore, score_clip
from avs_core.metrics import FrameScores, OfficialScores

CLIPS, SECONDS, SIZE = 10, 3, 24


def made(seed: int) -> tuple[LabelledClip, torch.Tensor]:
    """A clip with random masks, some empty, and an answer that knows something of them."""
    rng = np.random.default_rng(seed)
    masks = rng.random((SECONDS, SIZE, SIZE)) < 0.3
    masks[rng.random(SECONDS) < 0.3] = False
    ref = ClipRef(f"c{seed}", "ms3", "test", f"v{seed // 2}", SECONDS, (0, 1, 2), ("a",) if seed % 2 else ("a", "b"), 1)
    sound = np.zeros((SECONDS, 1, 96, 64), np.float32)
    clip = LabelledClip(ref, np.zeros((SECONDS, SIZE, SIZE, 3), np.uint8), sound, None, masks, np.ones(SECONDS, bool))
    logits = torch.from_numpy(rng.normal(0, 1.5, masks.shape) + 2.0 * masks - 1).float()
    return clip, logits


@pytest.fixture(scope="module")
def scored() -> tuple[list[ClipScore], list[tuple[LabelledClip, torch.Tensor]]]:
    clips = [made(seed) for seed in range(CLIPS)]
    return [score_clip(i, clip, logits, 0.4) for i, (clip, logits) in enumerate(clips)], clips


def test_official_figures_are_those_of_the_published_loop_bit_by_bit(scored) -> None:  # type: ignore[no-untyped-def]  # two lists
    scores, clips = scored
    loop = OfficialScores()
    for first in range(0, CLIPS, 4):
        batch = clips[first : first + 4]
        loop.update(torch.stack([x for _, x in batch]), torch.from_numpy(np.stack([c.masks for c, _ in batch])))
    wanted, found = loop.compute(), official(scores)
    assert (found.miou, found.fscore) == (wanted.miou, wanted.fscore)


def test_overall_figures_are_the_batch_independent_ones(scored) -> None:  # type: ignore[no-untyped-def]  # two lists
    scores, clips = scored
    loop = FrameScores()
    for clip, logits in clips:
        loop.update(logits, torch.from_numpy(clip.masks))
    wanted, found = loop.compute(), overall(scores)
    assert (found.miou, found.fscore, found.f_half) == pytest.approx((wanted.miou, wanted.fscore, wanted.fscore_at))
    assert (found.frames, found.sounding) == (wanted.frames, wanted.sounding)


def test_figures_at_the_models_threshold_match_a_naive_count(scored) -> None:  # type: ignore[no-untyped-def]  # two lists
    scores, clips = scored
    ious, areas = [], []
    for clip, logits in clips:
        for lit, mask in zip((torch.sigmoid(logits) > 0.4).numpy(), clip.masks, strict=True):
            if mask.any():
                ious.append((lit & mask).sum() / (lit | mask).sum())
            else:
                areas.append(lit.mean())
    found = overall(scores)
    assert found.miou_sounding_at == pytest.approx(np.mean(ious))
    assert found.empty_false_area == pytest.approx(np.mean(areas))
    assert found.empty_dark == 0


def test_neither_order_nor_place_of_the_work_changes_a_digit(scored) -> None:  # type: ignore[no-untyped-def]  # two lists
    scores = list(scored[0])
    random.Random(1).shuffle(scores)
    assert official(scores) == official(scored[0])
    assert overall(scores) == overall(scored[0])
    assert intervals(scores) == intervals(scored[0])


def test_groups_hold_the_clips_that_name_them(scored) -> None:  # type: ignore[no-untyped-def]  # two lists
    groups = grouped(scored[0], lambda score: score.categories)
    assert groups["a"] == overall(scored[0])
    assert groups["b"] == overall([score for score in scored[0] if "b" in score.categories])


def test_videos_are_drawn_whole(scored) -> None:  # type: ignore[no-untyped-def]  # two lists
    """Copies of a clip under one source add nothing to what is known; as videos of their own they would."""
    scores = scored[0]
    copies = [replace(s, place=s.place * 9 + i) for s in scores for i in range(9)]
    apart = [replace(s, source_id=f"{s.source_id}/{s.place}") for s in copies]
    width = {
        name: np.ptp(intervals(group)["miou"]) for name, group in (("one", scores), ("nine", copies), ("apart", apart))
    }
    assert width["nine"] == pytest.approx(width["one"])
    assert width["apart"] < width["one"] / 2
    low, high = intervals(scores)["miou"]
    assert low < overall(scores).miou < high


def test_all_frames_sounding_have_no_figures_of_empty_ones(scored) -> None:  # type: ignore[no-untyped-def]  # two lists
    full = [score for score in scored[0] if all(score.sounding)]
    assert overall(full).empty_false_area is None
    assert "empty_false_area" not in intervals(full)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(TrainingError, match="empty"):
        overall([])


def test_classes_are_scored_as_published() -> None:
    """Against the published formula, written as a loop over frames and classes."""
    rng, K = np.random.default_rng(0), 5
    clip = replace(made(1)[0], labels=rng.integers(0, 4, (SECONDS, SIZE, SIZE)))
    logits = torch.from_numpy(rng.normal(size=(SECONDS, K, SIZE, SIZE))).float()
    iou, f, count = np.zeros(K), np.zeros(K), np.zeros(K)
    for said, wanted in zip(logits.argmax(1).numpy(), clip.labels, strict=True):  # type: ignore[arg-type]  # it has labels
        for k in range(K):
            both, either = ((said == k) & (wanted == k)).sum(), ((said == k) | (wanted == k)).sum()
            if either:
                iou[k] += both / either
                precision, recall = both / max((said == k).sum(), 1), both / max((wanted == k).sum(), 1)
                f[k] += 1.3 * precision * recall / (0.3 * precision + recall + 1e-16)
                count[k] += 1
    found, by_class = official_classes([score_clip(0, clip, logits, 0.5)], ["none", "a", "b", "c", "d"])
    assert found.miou == pytest.approx(np.mean(iou / count))
    assert found.fscore == pytest.approx(np.mean(f / count), abs=1e-6)
    assert by_class["d"] == 0
    assert by_class["a"] == pytest.approx(iou[1] / count[1])
