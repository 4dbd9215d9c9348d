"""Units to clips: frame by frame against ffmpeg, cuts against the whole, sound against ffmpeg's."""

from pathlib import Path

import numpy as np
import pytest

from avs_core.errors import NoAudioStream
from avs_core.media.clips import decode_clip
from avs_core.media.config import DecodeConfig
from avs_core.media.probe import probe
from tests.media.clips import (
    CHIRP,
    FFMPEG,
    Recipe,
    codes_of,
    ffmpeg,
    frames_by_ffmpeg,
    shown_by_ffmpeg,
    snr_db,
    sound_by_ffmpeg,
)
from tests.media.conftest import MAX_PIXELS, cuts_agree, decode_whole, positions, unit_of
from tests.media.recipes import BASE, FAST, LONG, MADE_UP_NOISE, SLOW

SOUND_SNR_DB = 55
"""What swresample's rounding and the two libraries' versions leave; a shift by one sample would be below 25 dB."""


def held_to_ffmpeg(path: Path, backend: str) -> None:
    """All 16 looks of every second, and the published one alone."""
    info = probe(str(path))
    want = shown_by_ffmpeg(path, info.seconds, (info.height, info.width))
    dense = decode_whole(path, backend=backend, rate=16)
    assert codes_of(dense.frames) == want
    sparse = decode_whole(path, backend=backend)
    assert codes_of(sparse.frames) == [[second[15]] for second in want]
    times, codes = frames_by_ffmpeg(path, (info.height, info.width))
    assert [codes[index] for index in positions(dense)] == [code for second in want for code in second]
    shown_us = np.array([times[index] for index in positions(dense)]) * 1e6
    np.testing.assert_allclose(dense.frame_time_us.reshape(-1), shown_us, atol=100)  # 6 digits, and one tick of an MP4
    if info.has_audio:
        reference = sound_by_ffmpeg(path)
        reference = np.pad(reference, (0, max(len(sparse.waveform) - len(reference), 0)))
        assert snr_db(reference, sparse.waveform) > SOUND_SNR_DB


@pytest.mark.parametrize("recipe", FAST, ids=lambda recipe: recipe.name)
def test_frames_and_sound_are_ffmpegs(videos: Path, recipe: Recipe) -> None:
    held_to_ffmpeg(recipe.make(videos), "pyav")


def test_every_frame_decoded_gives_the_same(videos: Path) -> None:
    held_to_ffmpeg(FAST[1].make(videos), "pyav-sequential")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pyav", "pyav-sequential"])
@pytest.mark.parametrize("recipe", [*FAST, *SLOW], ids=lambda recipe: recipe.name)
def test_more_frames_and_sounds_are_ffmpegs(videos: Path, recipe: Recipe, backend: str) -> None:
    held_to_ffmpeg(recipe.make(videos), backend)


def test_an_edit_list_moves_the_clock(videos: Path) -> None:
    """The first 1.3 s are in the file but not shown."""
    source = BASE.but("source.mp4", frames=150, sound=CHIRP.format(d=6, r=44100)).make(videos)
    path = videos / "edited.mp4"
    ffmpeg("-ss", "1.3", "-i", str(source), "-c", "copy", str(path))
    held = decode_whole(path)
    assert codes_of(held.frames) == [[second[15]] for second in shown_by_ffmpeg(path, len(held.frames), (120, 160))]
    assert codes_of(held.frames)[0][0] > 50
    assert snr_db(sound_by_ffmpeg(path)[: 4 * 16_000], held.waveform[: 4 * 16_000]) > SOUND_SNR_DB


def test_a_recording_that_starts_between_key_frames(videos: Path) -> None:
    data = BASE.but("whole.ts", frames=150, sound=CHIRP.format(d=6, r=44100)).make(videos).read_bytes()
    path = videos / "middle.ts"
    path.write_bytes(data[len(data) // 188 // 3 * 188 :])
    held = decode_whole(path)
    assert codes_of(held.frames) == [[second[15]] for second in shown_by_ffmpeg(path, len(held.frames), (120, 160))]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("turn90", ("-display_rotation", "90")),
        ("turn180", ("-display_rotation", "180")),
        ("turn270", ("-display_rotation", "270")),
        ("mirror", ("-display_hflip",)),
        ("mirror_turn90", ("-display_rotation", "90", "-display_hflip")),
    ],
)
def test_frames_are_turned_as_ffmpeg_turns_them(videos: Path, plain: Path, name: str, options: tuple[str, ...]) -> None:
    path = videos / f"{name}.mp4"
    ffmpeg(*options, "-i", str(plain), "-c", "copy", str(path))
    info, clip = probe(str(path)), decode_whole(path, size=(96, 128))
    scale = "select=eq(n\\,23),scale=128:96:flags=bilinear+accurate_rnd+full_chroma_int"
    raw = ffmpeg("-i", str(path), "-vf", scale, "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    want = np.frombuffer(raw, np.uint8).reshape(96, 128, 3).astype(int)
    assert np.abs(want - clip.frames[0, 0]).mean() < 3
    sideways = "90" in name or "270" in name
    assert (info.height, info.width) == (clip.height, clip.width) == ((160, 120) if sideways else (120, 160))


@pytest.mark.parametrize("tags", [(), ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")])
@pytest.mark.parametrize("levels", ["tv", "pc"])
def test_colours_are_those_of_ffmpeg(videos: Path, tags: tuple[str, ...], levels: str) -> None:
    """Matrix and range of YUV are read from the file."""
    matrix = "bt709" if tags else "bt601"
    filters = ("-vf", f"scale=out_color_matrix={matrix}:out_range={levels}", "-color_range", levels, *tags)
    path = BASE.but(f"colours_{matrix}_{levels}.mp4", args=filters, sound="").make(videos)
    clip = decode_whole(path, size=(120, 160))
    raw = ffmpeg(
        *("-i", str(path), "-vf", "select=eq(n\\,23)", "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    )
    want = np.frombuffer(raw, np.uint8).reshape(120, 160, 3).astype(int)
    assert np.abs(want - clip.frames[0, 0]).mean() < 3.5  # the wrong matrix gives 6 and more


def test_a_unit_is_a_part_of_the_whole(videos: Path) -> None:
    path = LONG[0].make(videos)
    cuts_agree(path, DecodeConfig())
    assert positions(clip := decode_clip(unit_of(path, 20, 22), DecodeConfig(), MAX_PIXELS)) == [23, 48]
    assert clip.shown == 50


@pytest.mark.parametrize("recipe", MADE_UP_NOISE, ids=lambda recipe: recipe.name)
def test_the_noise_that_a_decoder_makes_up_does_not_depend_on_the_cut(videos: Path, recipe: Recipe) -> None:
    """It goes on from that of all frames that the decoder has seen."""
    cuts_agree(recipe.make(videos), DecodeConfig(size=16, rate=2))


def test_a_frame_that_was_there_before_the_unit_counts_from_its_own(videos: Path) -> None:
    """A frame every two seconds, the unit begins between them; nothing is first shown in its one second."""
    path = BASE.but("half.mkv", frames=20, fps="0.5", sound=CHIRP.format(d=40, r=22050)).make(videos)
    whole = decode_clip(unit_of(path, 0, 40), DecodeConfig(size=16), MAX_PIXELS)
    clip = decode_clip(unit_of(path, 21, 22), DecodeConfig(size=16), MAX_PIXELS)
    assert (positions(clip), clip.shown) == ([-1], 0)
    assert whole.frame_index[21, 0] == 10
    cuts_agree(path, DecodeConfig(size=16))


def test_frames_are_not_numbered_where_a_container_times_few_of_them(videos: Path) -> None:
    """In an MPEG program stream ffmpeg guesses the rest, and how depends on where it began to read."""
    path = next(recipe for recipe in LONG if recipe.name == "long.mpg").make(videos)
    clip = decode_clip(unit_of(path, 20, 25), DecodeConfig(size=16), MAX_PIXELS)
    assert (positions(clip), clip.shown) == ([-1] * 5, None)
    cuts_agree(path, DecodeConfig(size=16))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pyav", "pyav-sequential"])
@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("recipe", LONG, ids=lambda recipe: recipe.name)
def test_units_are_parts_of_the_whole(videos: Path, recipe: Recipe, rate: int, backend: str) -> None:
    cuts_agree(recipe.make(videos), DecodeConfig(rate=rate, backend=backend))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layout", "rate"),
    [("mono", 8000), ("stereo", 22050), ("5.1", 48000), ("7.1", 48000), ("quad", 32000), ("3.0", 16000)],
)
def test_every_layout_is_mixed_as_ffmpeg_mixes_it(videos: Path, layout: str, rate: int) -> None:
    """One tone a channel: a wrong weight would show as a wrong level."""
    count = {"mono": 1, "stereo": 2, "3.0": 3, "quad": 4, "5.1": 6, "7.1": 8}[layout]
    tones = "|".join(f"0.1*sin(2*PI*{200 + 150 * i}*t)" for i in range(count))
    recipe = BASE.but(
        f"layout_{layout}.mkv",
        frames=50,
        sound=f"aevalsrc='{tones}':d=2:s={rate}:c={layout}",
        sound_args=("-c:a", "pcm_f32le"),
    )
    path = recipe.make(videos)
    assert snr_db(sound_by_ffmpeg(path), decode_whole(path).waveform) > SOUND_SNR_DB


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f64le"])
def test_every_sample_format_has_the_same_level(videos: Path, codec: str) -> None:
    path = BASE.but(f"{codec}.mkv", frames=25, sound=CHIRP.format(d=1, r=16000), sound_args=("-c:a", codec)).make(
        videos
    )
    time = np.arange(16_000) / 16_000
    truth = 0.4 * np.sin(2 * np.pi * (200 * time + 150 * time**2))
    assert snr_db(truth, decode_whole(path).waveform) > (35 if codec == "pcm_u8" else 70)


def test_sound_that_ends_early_is_silent_to_the_end(videos: Path) -> None:
    path = BASE.but("short_sound.mp4", sound=CHIRP.format(d=1.5, r=44100)).make(videos)
    clip = decode_whole(path)
    assert clip.flags == ("audio_padded",)
    assert len(clip.waveform) == 3 * 16_000
    assert np.abs(clip.waveform[:20_000]).max() > 0.3
    assert not clip.waveform[26_000:].any()


def test_sound_that_starts_late_is_silent_before(videos: Path) -> None:
    recipe = BASE.but("late_sound.mkv", before_sound=("-itsoffset", "1.2"), sound=CHIRP.format(d=1.8, r=44100))
    clip = decode_whole(recipe.make(videos))
    assert clip.flags == ("audio_padded",)
    assert not clip.waveform[: int(1.15 * 16_000)].any()
    assert np.abs(clip.waveform[int(1.3 * 16_000) :]).max() > 0.3


def test_sound_longer_than_the_picture_is_cut(videos: Path) -> None:
    clip = decode_whole(BASE.but("long_sound.mp4", sound=CHIRP.format(d=5, r=44100)).make(videos))
    assert clip.flags == ()
    assert clip.waveform.shape == (3 * 16_000,)


def test_fragments_keep_sound_and_picture_together(videos: Path, plain: Path) -> None:
    """Their timestamps leave a gap at the start that ffmpeg closes by moving the sound; we do not move it."""
    path = videos / "fragments_with_sound.mp4"
    ffmpeg("-i", str(plain), "-c", "copy", "-movflags", "frag_keyframe+empty_moov", str(path))
    want, held = decode_whole(plain).waveform, decode_whole(path).waveform
    assert snr_db(want[3_200:44_800], held[3_200:44_800]) > 20


def test_no_sound_is_silence_or_death_by_policy(videos: Path) -> None:
    path = BASE.but("silent.mp4", sound="").make(videos)
    clip = decode_whole(path, rate=2)
    assert clip.flags == ("no_audio",)
    assert clip.audio_start_s == -1.0
    assert clip.waveform.shape == (4 * 16_000,)
    assert not clip.waveform.any()
    with pytest.raises(NoAudioStream, match="audio=silence"):
        decode_whole(path, audio="dead")


def test_other_phases_hear_the_second_before(videos: Path, plain: Path) -> None:
    one, two = decode_whole(plain), decode_whole(plain, rate=2)
    assert (one.audio_start_s, two.audio_start_s) == (0.0, -1.0)
    assert not two.waveform[:16_000].any()
    assert np.array_equal(two.waveform[16_000:], one.waveform)


def test_cover_art_is_no_video(videos: Path, plain: Path) -> None:
    cover, path = videos / "cover.jpg", videos / "cover.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=640x480", "-frames:v", "1", str(cover))
    maps = ("-map", "0", "-map", "1", "-c", "copy", "-c:v:0", "mjpeg", "-disposition:v:0", "attached_pic")
    ffmpeg("-i", str(cover), "-i", str(plain), *maps, str(path))
    assert probe(str(path)).codec == "h264"
    assert codes_of(decode_whole(path).frames) == codes_of(decode_whole(plain).frames)


def end_to_end(videos: Path, name: str, *parts: Path) -> Path:
    """Files of one container, their packets one after the other with rising timestamps."""
    listing, path = videos / f"{name}.txt", videos / name
    listing.write_text("".join(f"file '{part}'\n" for part in parts))
    ffmpeg("-f", "concat", "-safe", "0", "-i", str(listing), "-c", "copy", str(path))
    return path


@pytest.mark.parametrize("backend", ["pyav", "pyav-sequential"])
def test_a_change_of_resolution_is_flagged(videos: Path, backend: str) -> None:
    small = BASE.but("small.ts").make(videos)
    large = BASE.but("large.ts", size=(144, 192)).make(videos)
    clip = decode_whole(end_to_end(videos, "two_sizes.ts", small, large), backend=backend)
    assert clip.flags == ("resolution_change",)
    assert (clip.height, clip.width) == (120, 160)
    units = [
        decode_clip(unit_of(videos / "two_sizes.ts", *ends), DecodeConfig(), MAX_PIXELS) for ends in ((0, 3), (3, 6))
    ]
    assert [unit.flags for unit in units] == [(), ("resolution_change",)], "each unit has frames of one size"
    codes = [second[0] for second in codes_of(clip.frames)]
    assert codes[:3] == [23, 48, 73]
    assert all(abs(code - want) <= 1 for code, want in zip(codes[3:6], [23, 48, 73], strict=True))


def test_a_change_of_the_sounds_rate_does_not_stop_it(videos: Path) -> None:
    mp2 = ("-c:a", "mp2")
    first = BASE.but("rate1.ts", sound=CHIRP.format(d=3, r=44100), sound_args=mp2).make(videos)
    second = BASE.but("rate2.ts", sound=CHIRP.format(d=3, r=48000), sound_args=(*mp2, "-ac", "2")).make(videos)
    clip = decode_whole(end_to_end(videos, "two_rates.ts", first, second))
    one, two = decode_whole(first).waveform, decode_whole(second).waveform
    assert snr_db(one[:40_000], clip.waveform[:40_000]) > SOUND_SNR_DB
    late = clip.waveform[50_000:94_000]
    shift = int(np.argmax(np.correlate(late, two[8_000:24_000], "valid")))
    assert snr_db(two[8_000:24_000], late[shift : shift + 16_000]) > 20


def test_decoding_twice_gives_the_same_bytes(plain: Path) -> None:
    one, two = decode_whole(plain), decode_whole(plain)
    assert np.array_equal(one.frames, two.frames)
    assert np.array_equal(one.waveform, two.waveform)


def test_the_oracle_is_a_real_ffmpeg() -> None:
    assert Path(FFMPEG).exists()
