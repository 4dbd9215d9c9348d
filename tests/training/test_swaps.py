"""Pictures come twice, with other sounds and other masks; what is lit is what the sound is of."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from avs_core.datasets.composites import Composer, ComposerConfig
from avs_core.datasets.sources import Sources
from avs_core.errors import ConfigError
from avs_core.training.data import Batch, StreamConfig
from avs_core.training.swaps import CROWDED, SILENT, SwapBatches

SWAPPED = StreamConfig(size=64, clips=4, frames=2, hushed=0.0, foreign=0.0, apart=False)


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """The pictures with their own sounds, and with the others."""
    middle = len(batch.frames) // 2
    parts: list[dict[str, Any]] = [
        {k: None if v is None else v[at] for k, v in vars(batch).items()}
        for at in (slice(0, middle), slice(middle, None))
    ]
    return Batch(**parts[0]), Batch(**parts[1])


def test_both_halves_show_the_same_and_sound_differently(tiny_sources: Sources) -> None:
    own, other = halves(SwapBatches(tiny_sources, "train", SWAPPED, 9)[2])
    assert len(own.frames) == SWAPPED.clips
    assert torch.equal(own.frames, other.frames)
    assert own.things is not None
    assert other.things is not None
    assert torch.equal(own.things, other.things)
    assert all(not torch.equal(a, b) for a, b in zip(own.sound, other.sound, strict=True))


def test_the_other_sound_lights_its_own_thing_and_nothing_of_the_first(tiny_sources: Sources) -> None:
    seen = 0
    for number in range(4):
        own, other = halves(SwapBatches(tiny_sources, "train", SWAPPED, 9)[number])
        assert not (own.masks & other.masks).any()
        assert own.heard is not None
        assert other.heard is not None
        for i in range(SWAPPED.clips):
            composer = Composer(
                tiny_sources, "train", ComposerConfig(size=64, seconds=2, distractor_share=CROWDED, silent_share=SILENT)
            )
            clip = composer.compose(5_000_000 + number * SWAPPED.clips + i)
            assert np.array_equal(clip.masks, own.masks[i].numpy())
            for second in np.flatnonzero(other.masks[i].flatten(1).any(1).numpy()):
                category = tiny_sources.categories[int(other.heard[i, second].float().argmax())]
                things = [one.visible[second] for one in clip.objects if one.category == category]
                assert any(np.array_equal(other.masks[i, second].numpy(), thing) for thing in things)
                seen += 1
    assert seen > 2


@pytest.mark.parametrize(("hushed", "noisy", "foreign"), [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_silence_noise_and_foreign_sounds_light_nothing(
    tiny_sources: Sources, hushed: float, noisy: float, foreign: float
) -> None:
    config = replace(SWAPPED, hushed=hushed, noisy=noisy, foreign=foreign)
    _, other = halves(SwapBatches(tiny_sources, "train", config, 9)[1])
    assert not other.masks.any()
    assert other.heard is not None
    if not foreign:
        assert not other.heard.any()
    if noisy:
        faint = SwapBatches(tiny_sources, "train", replace(SWAPPED, hushed=1.0), 9)[1]
        assert other.sound.mean() > halves(faint)[1].sound.mean()


def test_a_batch_depends_on_its_number_alone_and_is_shared_clip_by_clip(tiny_sources: Sources) -> None:
    whole, again = (SwapBatches(tiny_sources, "train", SWAPPED, 9)[3] for _ in range(2))
    assert torch.equal(whole.sound, again.sound)
    assert torch.equal(whole.masks, again.masks)
    for rank in range(2):
        share = SwapBatches(tiny_sources, "train", SWAPPED, 9, rank, 2)[3]
        own = [rank, rank + 2]
        assert torch.equal(share.sound, whole.sound[own + [i + SWAPPED.clips for i in own]])
    with pytest.raises(ConfigError, match="each process needs a clip"):
        SwapBatches(tiny_sources, "train", SWAPPED, 9, 0, 5)


def test_every_other_batch_is_of_single_seconds(tiny_sources: Sources) -> None:
    batches = SwapBatches(tiny_sources, "train", replace(SWAPPED, apart=True), 9)
    assert [tuple(batches[number].masks.shape[:2]) for number in (0, 1)] == [(8, 2), (16, 1)]
