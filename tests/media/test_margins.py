"""What a unit hears beyond its own seconds: no cut may be heard, only the file's own ends."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from avs_core.audio import LOG_MEL, FrontEnd, Samples
from avs_core.clip import AUDIO_RATE, Clip
from avs_core.errors import ConfigError
from avs_core.media.clips import decode_clip
from avs_core.media.config import DecodeConfig
from avs_core.media.decode import GuardedDecoder
from avs_core.models.segmenter import FRAME_OFFSET_S, phase_offsets, windows
from tests.media.clips import Recipe
from tests.media.conftest import MAX_PIXELS, unit_of
from tests.media.recipes import BASE, MP3, MPEG4

SECONDS, SOUND_S = 12, 14
NOISE = f"anoisesrc=d={SOUND_S}:r=44100:a=0.4:seed=7"
NOISY = BASE.but("noisy.mp4", frames=25 * SECONDS, sound=NOISE)
NOISY_AVI = BASE.but("noisy.avi", frames=25 * SECONDS, video=MPEG4, sound=NOISE, sound_args=MP3)
"""Sound that is longer than the picture; AVI's times can't be below zero."""


def config_for(ear: FrontEnd, rate: int) -> DecodeConfig:
    return DecodeConfig(size=16, rate=rate, reach=ear.reach)


def examples(ear: FrontEnd, clip: Clip, start_s: int) -> dict[tuple[int, float], Tensor]:
    """By window and phase, as WindowSegmenter makes them: of the phase that hears first, a middle one and the last."""
    seconds, rate = clip.frames.shape[:2]
    phases = phase_offsets(rate)
    return {
        (first, phase): ear.examples(
            clip.waveform, stop - first, "aligned", first + (phase - FRAME_OFFSET_S) - clip.audio_start_s
        )
        for first, stop in windows(start_s, start_s + seconds, 5)
        for phase in {phases[0], phases[rate // 2], phases[-1]}
    }


@pytest.mark.parametrize(
    ("recipe", "rate", "ear"),
    [
        *((NOISY, rate, LOG_MEL) for rate in (4, 16, 17, 25, 60)),
        *((recipe, 1, Samples(around_s)) for recipe in (NOISY, NOISY_AVI) for around_s in (2.0, 10.0)),
        (NOISY, 25, Samples(2.0)),
    ],
    ids=lambda value: value.name if isinstance(value, Recipe) else str(value),
)
def test_a_unit_hears_what_the_whole_hears(videos: Path, recipe: Recipe, rate: int, ear: FrontEnd) -> None:
    """Units of 5 s behind the guard, one of 10 s in this process."""
    path, config = recipe.make(videos), config_for(ear, rate)
    whole = decode_clip(unit_of(path, 0, SECONDS), config, MAX_PIXELS)
    want = examples(ear, whole, 0)
    with GuardedDecoder(config) as decoder:
        units = [unit_of(path, *ends) for ends in ((0, 5), (5, 10), (10, SECONDS), (0, 10))]
        clips = [*map(decoder.decode, units[:3]), decode_clip(units[3], config, MAX_PIXELS)]
    for unit, clip in zip(units, clips, strict=True):
        assert np.array_equal(clip.frames, whole.frames[unit.start_s : unit.stop_s])
        for place, heard in examples(ear, clip, unit.start_s).items():
            assert torch.equal(heard, want[place]), f"window and phase {place} of [{unit.start_s}, {unit.stop_s}) s"


def test_only_beyond_the_files_own_ends_is_silence(videos: Path) -> None:
    """Ten seconds around the first and the last second: the sound is two seconds longer than the picture."""
    path, ear = NOISY.make(videos), Samples(10.0)
    config = config_for(ear, 1)
    first = ear.examples((clip := decode_clip(unit_of(path, 0, 5), config, MAX_PIXELS)).waveform, 1, start_s=5)[0]
    assert (clip.audio_start_s, len(clip.waveform)) == (-5.0, 15 * AUDIO_RATE)
    silent = round(4.5 * AUDIO_RATE)
    assert not first[: silent - 1].any()
    assert first[silent + 100 :].unfold(0, 100, 100).any(1).all()
    clip = decode_clip(unit_of(path, 10, SECONDS), config, MAX_PIXELS)
    last = ear.examples(clip.waveform, 1, start_s=SECONDS - 1 - clip.audio_start_s)[0]  # [6.5, 16.5) s
    sounds = round((SOUND_S - 6.5) * AUDIO_RATE)
    assert last[: sounds - 100].unfold(0, 100, 100).any(1).all()
    assert not last[sounds + 2000 :].any()  # AAC's last frame


def test_a_file_without_sound_is_silent_as_long_as_another(videos: Path) -> None:
    path = BASE.but("mute.mp4", sound="").make(videos)
    for rate, ear, heard_s in ((1, LOG_MEL, (0, 3)), (25, LOG_MEL, (-1, 4)), (1, Samples(2.0), (-1, 4))):
        clip = decode_clip(unit_of(path, 0, 3), config_for(ear, rate), MAX_PIXELS)
        assert (clip.audio_start_s, len(clip.waveform)) == (heard_s[0], (heard_s[1] - heard_s[0]) * AUDIO_RATE)
        assert not clip.waveform.any()
        assert clip.flags == ("no_audio",)


def test_a_reach_is_not_negative() -> None:
    with pytest.raises(ConfigError, match=r"0 or more, got \(-1, 0\)"):
        DecodeConfig(reach=(-1, 0))
