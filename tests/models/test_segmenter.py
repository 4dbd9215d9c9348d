"""The segmenter: which seconds and which sound meet, and that nothing else matters."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from parity.generate import generator

from avs_core.audio import window_examples
from avs_core.clip import Clip
from avs_core.errors import ConfigError, NonFiniteOutput
from avs_core.models.audio_cnn import AudioCNN
from avs_core.models.bundle import Bundle, BundleConfig
from avs_core.models.instance_aware import InstanceAwareConfig, InstanceAwareNet
from avs_core.models.segmenter import (
    FramePrediction,
    InstanceSegmenter,
    UnionSegmenter,
    lit_queries,
    looks,
    objects,
    open_segmenter,
    phase_offsets,
    windows,
)
from avs_core.models.tpavi import TPAVIConfig, TPAVINet

SIZE = 64
SOURCE = (90, 150)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(3)
    tpavi = TPAVIConfig(backbone="tf_efficientnet_lite0", channels=16, inner=8)
    net = TPAVINet(tpavi).eval()
    for block in net.tpavi.values():
        torch.nn.init.ones_(block.bn.weight)
    # Centre the untrained logits, so that masks are neither empty nor full.
    net.head[4].weight.data *= 100
    config = BundleConfig(name="tiny", tpavi=tpavi, audio_encoder="audio_cnn", size=SIZE)
    loaded = Bundle(config, (), net, AudioCNN().eval(), "0" * 64)
    made = clip(5)
    centre = float(np.median(reference(loaded, made, 0, 5)))
    net.head[4].bias.data -= centre
    return loaded


def clip(seconds: int, rate: int = 1, start: int = 0, whole: int = 20) -> Clip:
    """Seconds [start, start + seconds) of one long video of noise, with its sound."""
    frames = generator("frames").integers(0, 256, (whole, rate, SIZE, SIZE, 3), np.uint8)
    wave = generator("wave").uniform(-0.5, 0.5, whole * 16_000).astype(np.float32)
    times = np.zeros((seconds, rate), np.int64)
    return Clip(frames[start : start + seconds], times, times, wave, 0.0, *SOURCE, 25 * seconds)


def reference(bundle: Bundle, made: Clip, first: int, stop: int, phase: int = 0, shift: float = 0.0) -> np.ndarray:
    """Logits (T, 64, 64) of one window, written out."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (bundle.config.mean, bundle.config.std))
    frames = (torch.from_numpy(made.frames[first:stop, phase]).permute(0, 3, 1, 2) / 255 - mean) / std
    examples = window_examples(made.waveform, stop - first, "aligned", first + shift)
    with torch.inference_mode():
        return bundle.net(frames[None], bundle.audio_encoder(examples)[None]).logits[0].numpy()


def masks(found: Iterator[FramePrediction]) -> dict[tuple[int, int], np.ndarray | None]:
    return {(f.second, f.phase): f.masks[0].mask if f.masks else None for f in found}


def same(a: dict[tuple[int, int], np.ndarray | None], b: dict[tuple[int, int], np.ndarray | None]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_masks_are_thresholded_at_source_size(bundle: Bundle) -> None:
    made = clip(7)
    found = list(UnionSegmenter(bundle, "cpu").segment(made, 0))
    assert [(f.second, f.phase) for f in found] == [(s, 0) for s in range(7)]
    for first, stop in ((0, 5), (5, 7)):
        logits = torch.from_numpy(reference(bundle, made, first, stop))
        large = F.interpolate(logits[:, None], SOURCE, mode="bilinear", align_corners=False)[:, 0].sigmoid().numpy()
        for probability, frame in zip(large, found[first:stop], strict=True):
            (union,) = frame.masks
            assert union.object_id == 0
            assert union.mask.shape == SOURCE
            assert 0.01 < union.mask.mean() < 0.99
            np.testing.assert_array_equal(union.mask, probability > 0.5)
            assert union.score == pytest.approx(probability[union.mask].mean(), abs=1e-6)


def test_where_a_video_is_cut_does_not_matter(bundle: Bundle) -> None:
    segmenter = UnionSegmenter(bundle, "cpu")
    whole = masks(segmenter.segment(clip(18), 0, (64, 64)))
    cut = {}
    for start, seconds in ((0, 5), (5, 10), (15, 3)):
        made = clip(seconds, start=start)
        # A unit's waveform starts a little before its frames, wherever its decoder could.
        heard = replace(
            made, waveform=made.waveform[max(start * 16_000 - 8_000, 0) :], audio_start_s=max(start - 0.5, 0.0)
        )
        cut |= masks(segmenter.segment(heard, start, (64, 64)))
    assert same(whole, cut)


def test_phases_are_passes_with_their_own_sound(bundle: Bundle) -> None:
    made = clip(5, rate=2)
    found = list(UnionSegmenter(bundle, "cpu").segment(made, 0, (SIZE, SIZE)))
    assert [(f.second, f.phase) for f in found] == [(s, p) for s in range(5) for p in (0, 1)]
    for phase, shift in ((0, -0.5), (1, 0.0)):
        logits = reference(bundle, made, 0, 5, phase, shift)
        for frame, expected in zip(found[phase::2], logits, strict=True):
            np.testing.assert_array_equal(frame.masks[0].mask, torch.from_numpy(expected).sigmoid().numpy() > 0.5)


def test_the_last_phase_of_a_higher_rate_is_the_default_pass(bundle: Bundle) -> None:
    made = clip(5, rate=2)
    times = made.frame_time_us[:, 1:]
    single = replace(made, frames=made.frames[:, 1:], frame_index=times, frame_time_us=times)
    segmenter = UnionSegmenter(bundle, "cpu")
    double = {s: m for (s, phase), m in masks(segmenter.segment(made, 0)).items() if phase == 1}
    assert same({(s, 0): m for s, m in double.items()}, masks(segmenter.segment(single, 0)))


def test_an_empty_mask_is_no_object(bundle: Bundle) -> None:
    found = list(UnionSegmenter(bundle, "cpu", threshold=1 - 1e-12).segment(clip(2), 0))
    assert [f.masks for f in found] == [(), ()]


def test_audio_decides_too(bundle: Bundle) -> None:
    made = clip(5)
    silent = replace(made, waveform=np.zeros(0, np.float32))
    segmenter = UnionSegmenter(bundle, "cpu")
    assert not same(masks(segmenter.segment(made, 0)), masks(segmenter.segment(silent, 0)))


def test_logits_that_are_not_finite_are_an_error(bundle: Bundle) -> None:
    made = clip(1)
    broken = replace(made, waveform=np.full(16_000, np.nan, np.float32))
    with pytest.raises(NonFiniteOutput, match=r"seconds \[0, 1\)"):
        list(UnionSegmenter(bundle, "cpu").segment(broken, 0))


def test_what_it_cannot_do_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        UnionSegmenter(bundle, "cpu", threshold=0.0)
    with pytest.raises(ConfigError, match="64×64"):
        list(UnionSegmenter(bundle, "cpu").segment(replace(clip(1), frames=np.zeros((1, 1, 32, 32, 3), np.uint8)), 0))
    semantic = bundle.config.model_copy(update={"tpavi": bundle.config.tpavi.model_copy(update={"classes": 71})})
    with pytest.raises(ConfigError, match="71 classes"):
        UnionSegmenter(replace(bundle, config=semantic), "cpu")


@given(start=st.integers(0, 40), length=st.integers(1, 40), size=st.integers(1, 9))
def test_windows_tile_the_seconds_and_break_at_multiples(start: int, length: int, size: int) -> None:
    cut = list(windows(start, start + length, size))
    assert [s for first, stop in cut for s in range(first, stop)] == list(range(start, start + length))
    assert all(first % size == 0 for first, _ in cut[1:])
    assert all(stop - first <= size for first, stop in cut)


def test_phase_offsets() -> None:
    assert phase_offsets(1) == [0.9375]
    assert phase_offsets(2) == [0.4375, 0.9375]
    assert phase_offsets(4) == [0.1875, 0.4375, 0.6875, 0.9375]


def instances(seed: int = 0) -> Bundle:
    """An instance-aware bundle that sees and hears something everywhere."""
    torch.manual_seed(seed)
    made = InstanceAwareConfig(
        backbone="tf_efficientnet_lite0", categories=3, queries=5, learnt=1, channels=16, heads=2, hidden=8, finest=8
    )
    net = InstanceAwareNet(made).eval()
    net.classes.bias.data = torch.tensor([0.0, 0.0, 0.0, -3.0])
    net.kernels[4].weight.data *= 20
    config = BundleConfig(
        name="tiny", arch="instance_aware", instance_aware=made, audio_encoder="audio_cnn", size=SIZE, threshold=0.4
    )
    return Bundle(config, ("dog", "cat", "cow"), net, AudioCNN().eval(), "0" * 64)


def test_instances_are_the_nets_own_queries_with_their_scores() -> None:
    bundle, made = instances(), clip(5)
    mean, std = (torch.tensor(v)[:, None, None] for v in (bundle.config.mean, bundle.config.std))
    frames = (torch.from_numpy(made.frames[:5, 0]).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        answer = bundle.net(frames[None], bundle.audio_encoder(window_examples(made.waveform, 5, "aligned", 0))[None])
    found = list(InstanceSegmenter(bundle, device="cpu").segment(made, 0, (SIZE, SIZE)))
    assert sum(len(frame.masks) for frame in found) > 5
    for t, frame in enumerate(found):
        union = torch.sigmoid(answer.logits[0, t]) > 0.4
        assert [np.array_equal(one.mask, union) for one in frame.masks if one.object_id == 0] == [True] * bool(
            union.any()
        )
        p = answer.sight.proposals.probabilities[0, t]
        kept = objects(p, answer.sight.proposals.masks[0, t])
        scores = {round(float(answer.sounding[0, t, i]), 5): int(i) for i in kept}
        singles = [one for one in frame.masks if one.object_id]
        assert len(singles) == len(kept)
        for one in singles:
            i = scores[round(one.score, 5)]
            kind = int(p[i].argmax())
            assert one.category == bundle.categories[kind]
            assert one.category_score == pytest.approx(float(p[i, kind]))
            heard = torch.sigmoid(answer.heard[0, t, kind]) * answer.active[0, t]
            assert one.audio_score == pytest.approx(float(heard))
            assert one.sounding == (one.score > 0.4)


def test_objects_count_in_each_frame_the_surest_first() -> None:
    bundle, made = instances(), clip(5)
    for frame in InstanceSegmenter(bundle, device="cpu").segment(made, 0):
        singles = [one for one in frame.masks if one.object_id]
        assert [one.object_id for one in singles] == list(range(1, len(singles) + 1))


def test_an_object_is_something_and_no_second_look() -> None:
    left, right, most = torch.full((3, 8, 8), -1.0)
    left[:, :4], right[:, 4:], most[:, :5] = 1, 1, 1
    nowhere = torch.full((8, 8), -1.0)
    p = torch.tensor([[0.5, 0.1], [0.2, 0.2], [0.3, 0.6], [0.9, 0.0], [0.1, 0.5]])
    masks = torch.stack([left, right, most, nowhere, right])
    assert objects(p, masks).tolist() == [2, 4], "0 looks at what 2 covers, 1 is unsure, 3 covers nothing"


def test_a_second_look_belongs_to_its_object_and_what_is_lit_is_one_however_unsure() -> None:
    left, right = torch.full((2, 8, 8), -1.0)
    left[:, :4], right[:, 4:] = 1, 1
    p, masks = torch.tensor([[0.9], [0.6], [0.3], [0.4]]), torch.stack([left, left, right, torch.full((8, 8), -1.0)])
    assert looks(p, masks) == [[0, 1]]
    assert looks(p, masks, torch.tensor([False, False, True, True])) == [[0, 1], [2]]


def test_a_frame_that_is_lit_has_a_query_that_lights_it() -> None:
    masks = torch.stack([torch.full((4, 4), -1.0), torch.ones(4, 4), torch.ones(4, 4)])
    sounding = torch.tensor([0.19, 0.18, 0.15])
    assert lit_queries(sounding, masks, 0.2, any_lit=False).tolist() == [False] * 3
    assert lit_queries(sounding, masks, 0.2, any_lit=True).tolist() == [False, True, False], "the first shows nothing"
    assert lit_queries(sounding, masks, 0.17, any_lit=True).tolist() == [True, True, False]
    assert lit_queries(sounding, masks[:1].expand(3, -1, -1), 0.2, any_lit=True).tolist() == [False] * 3


def test_an_unsure_query_that_is_lit_gives_object_0_its_object() -> None:
    bundle, made = instances(), clip(5)
    bundle.net.classes.bias.data = torch.tensor([0.0, 0.0, 0.0, 1.5])
    segmenter = InstanceSegmenter(bundle, "cpu", threshold=0.15)
    frames = list(segmenter.segment(made, 0, (SIZE, SIZE)))
    lit = [frame for frame in frames if any(one.object_id == 0 for one in frame.masks)]
    assert lit
    assert all(any(one.object_id and one.sounding for one in frame.masks) for frame in lit)


def test_a_bundle_opens_its_own_segmenter(bundle: Bundle) -> None:
    assert type(open_segmenter(bundle, "cpu")) is UnionSegmenter
    assert type(open_segmenter(instances(), "cpu")) is InstanceSegmenter
    with pytest.raises(ConfigError, match="writes one region, tiny is instance_aware"):
        UnionSegmenter(instances(), "cpu")
    with pytest.raises(ConfigError, match="need an instance-aware net, tiny is tpavi"):
        InstanceSegmenter(bundle, "cpu")
