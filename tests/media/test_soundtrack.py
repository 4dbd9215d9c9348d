"""Blocks of sound: what each of them is told, how often a packet is decoded, whom damage costs what."""

import struct
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avs_core.errors import CorruptMedia
from avs_core.media import soundtrack
from avs_core.media.clips import decode_clip
from avs_core.media.config import DecodeConfig
from avs_core.media.soundtrack import Soundtrack
from tests.media.clips import CHIRP, ffmpeg
from tests.media.conftest import MAX_PIXELS, cuts_agree, unit_of
from tests.media.recipes import AAC, BASE, MADE_UP_NOISE, MPEG4, NOISE_40_S, WMA

CONFIG = DecodeConfig(size=16)


def flv_of(path: Path, sine_hz: int, rate: int) -> bytes:
    """Twenty seconds of a tone without a picture."""
    sound = f"aevalsrc='0.5*sin(2*PI*{sine_hz}*t)':d=20:s={rate}"
    ffmpeg("-f", "lavfi", "-i", sound, *AAC, str(path))
    return path.read_bytes()


def tags_of(flv: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, ms, what it holds) of each tag of an FLV."""
    at = 13
    while at < len(flv):
        kind, size = flv[at], int.from_bytes(flv[at + 1 : at + 4], "big")
        yield kind, int.from_bytes(flv[at + 4 : at + 7], "big"), flv[at + 11 : at + 11 + size]
        at += 15 + size


def flv_tag(kind: int, ms: int, data: bytes) -> bytes:
    """A tag as it stands in the file."""
    head = bytes([kind]) + struct.pack(">I", len(data))[1:] + struct.pack(">I", ms)[1:] + bytes(4)
    return head + data + struct.pack(">I", len(head) + len(data))


def joined(first: bytes, second: bytes, at_ms: int) -> bytes:
    """The second's sound, its configuration too, behind the first's: a live stream whose source was changed."""
    sound = 8
    late = [flv_tag(kind, ms + at_ms, data) for kind, ms, data in tags_of(second) if kind == sound]
    early = [flv_tag(kind, ms, data) for kind, ms, data in tags_of(first) if kind == sound and ms < at_ms]
    return first[:13] + b"".join(early + late)


def heard(path: Path, seconds: int) -> np.ndarray:
    """What the track of a file makes of all its sound."""
    with av.open(str(path)) as container:
        end_s = float(seconds)
        track = Soundtrack(container.streams.audio[0], Fraction(0), (0, seconds), (0.0, end_s), end_s, None)
        for packet in container.demux(container.streams.audio[0]):
            track.feed(packet)
    assert track.errors == 0
    return track.finish()[0]


def pureness(sound: np.ndarray, sine_hz: int) -> float:
    """Share of a second's power that is at one frequency and next to it."""
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    return float(power[sine_hz - 3 : sine_hz + 4].sum() / power.sum())


def test_a_codec_that_is_configured_anew_is_so_for_the_blocks_to_come(tmp_path: Path) -> None:
    """One that knows the file's header alone takes 22.05 kHz for 44.1 kHz, an octave too high."""
    first, second = flv_of(tmp_path / "first.flv", 440, 44_100), flv_of(tmp_path / "second.flv", 880, 22_050)
    both = tmp_path / "both.flv"
    both.write_bytes(joined(first, second, 20_000))
    seconds = heard(both, 40).reshape(40, 16_000)
    assert min(pureness(sound, 440) for sound in seconds[1:19]) > 0.999
    assert min(pureness(sound, 880) for sound in seconds[21:39]) > 0.999


def test_a_packet_is_decoded_at_most_twice_however_long_the_unit(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice where a block ends: each of 4 has a second before it and one behind it."""
    seen: list[Fraction] = []
    feed = soundtrack._Block.feed  # how much work is done shows nowhere else

    def counting(block: soundtrack._Block, packet: av.Packet, at_s: Fraction, until_s: Fraction) -> bool:
        seen.append(at_s)
        return feed(block, packet, at_s, until_s)

    monkeypatch.setattr(soundtrack._Block, "feed", counting)
    decode_clip(unit_of(MADE_UP_NOISE[0].make(videos), 0, 40), CONFIG, MAX_PIXELS)
    times = Counter(seen)
    assert max(times.values()) == 2
    assert len(seen) < len(times) * (1 + 3 * 2.2 / 40)


def without_sound(source: Path, path: Path, start_s: float, stop_s: float) -> Path:
    """The same packets, but those of sound in [start_s, stop_s)."""
    with av.open(str(source)) as read, av.open(str(path), "w") as write:
        streams = {stream.index: write.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            gap = packet.stream.type == "audio" and start_s <= float((packet.pts or 0) * packet.time_base) < stop_s
            if packet.size and not gap:
                packet.stream = streams[packet.stream.index]
                write.mux(packet)
    return path


@pytest.mark.parametrize(
    "gap", [(12.0, 20.5), *(pytest.param(gap, marks=pytest.mark.slow) for gap in ((9.2, 25.3), (18.2, 29.9)))], ids=str
)
def test_what_is_before_a_gap_is_no_lead_in(videos: Path, tmp_path: Path, gap: tuple[float, float]) -> None:
    """A unit that begins behind the gap would not have it."""
    whole = BASE.but("noise.mkv", frames=1000, sound=MADE_UP_NOISE[0].sound, sound_args=("-c:a", "aac", "-b:a", "32k"))
    path = without_sound(whole.make(videos), tmp_path / "gap.mkv", *gap)
    cuts_agree(path, CONFIG)


def damaged(source: Path, path: Path, start_s: float, stop_s: float) -> Path:
    """The same file, with nothing but ones in the packets of sound of [start_s, stop_s)."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        for packet in container.demux(container.streams.audio[0]):
            if packet.size and start_s <= float(packet.pts * packet.time_base) < stop_s:
                at = data.index(bytes(packet))
                data[at : at + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)
    return path


def fate_of(path: Path, start_s: int, stop_s: int, config: DecodeConfig = CONFIG) -> str:
    """Whether a unit can be decoded."""
    try:
        decode_clip(unit_of(path, start_s, stop_s), config, MAX_PIXELS)
    except CorruptMedia as error:
        return str(error)
    return "ok"


def test_damaged_sound_costs_the_unit_that_it_lies_in_and_no_other(videos: Path, tmp_path: Path) -> None:
    """Also where others decode it, for the ten seconds that they share with it or as their lead-in."""
    whole = BASE.but("chirp.mkv", frames=500, sound=CHIRP.format(d=20, r=44100)).make(videos)
    early = damaged(whole, tmp_path / "early.mkv", 8.0, 8.2)
    assert [fate_of(early, start, start + 5) for start in (0, 10, 15)] == ["ok"] * 3
    assert "9 of the sound" in fate_of(early, 5, 10)
    late = damaged(whole, tmp_path / "late.mkv", 9.5, 9.7)
    for config in (CONFIG, DecodeConfig(size=16, rate=17)):  # at which a unit hears a second before it too
        assert [fate_of(late, start, start + 5, config) for start in (0, 10, 15)] == ["ok"] * 3
        assert "of the sound are not" in fate_of(late, 5, 10, config)


def test_sound_that_never_is_decodable_is_no_silence(videos: Path, tmp_path: Path) -> None:
    """A decoder that has not found its feet after a second will not find them."""
    whole = BASE.but("chirp.mkv", frames=500, sound=CHIRP.format(d=20, r=44100)).make(videos)
    path = damaged(whole, tmp_path / "never.mkv", 9.0, 25.0)
    assert "of the sound are not" in fate_of(path, 10, 20)
    assert fate_of(path, 0, 5) == "ok"


def test_sound_that_is_damaged_behind_the_picture_still_tells_of_a_broken_file(videos: Path, tmp_path: Path) -> None:
    """Up to a second behind the last one that is looked at: the last unit is the one to ask."""
    for frames, at_s in ((500, 20.1), (507, 20.6)):  # 20 and 20.28 s, both looked at in 20 seconds
        recipe = BASE.but(f"longer_sound_{frames}.mkv", frames=frames, sound=CHIRP.format(d=at_s + 0.4, r=44100))
        path = damaged(recipe.make(videos), tmp_path / recipe.name, at_s, at_s + 0.15)
        assert "of the sound are not" in fate_of(path, 15, 20)
        assert fate_of(path, 10, 15) == "ok"


def test_a_packet_that_is_broken_costs_all_units_that_it_sounds_in(videos: Path, tmp_path: Path) -> None:
    """True Audio's packets last a second."""
    recipe = BASE.but("tta.mkv", frames=500, sound=CHIRP.format(d=20, r=44100), sound_args=("-c:a", "tta"))
    path = damaged(recipe.make(videos), tmp_path / "tta.mkv", 9.2, 9.9)
    assert ["of the sound" in fate_of(path, start, start + 5) for start in (0, 5, 10, 15)] == [False, True, True, False]


def test_the_last_sound_that_a_decoder_holds_back_is_heard(videos: Path) -> None:
    """WMA's decoder is a block behind; also where sound is the file's first stream."""
    for order in (("-map", "0:v", "-map", "1:a"), ("-map", "1:a", "-map", "0:v")):
        recipe = BASE.but(
            f"held_back_{order[1][0]}.wmv", video=MPEG4, sound="sine=d=3:r=44100", sound_args=WMA, args=order
        )
        clip = decode_clip(unit_of(recipe.make(videos), 0, 3), CONFIG, MAX_PIXELS)
        assert np.abs(clip.waveform[-200:]).max() > 0.05


def test_a_file_that_was_copied_from_its_middle_has_sound_before_its_start(videos: Path, tmp_path: Path) -> None:
    """Matroska's first packet then lies before the stream's own start, where no seek finds it."""
    noise = BASE.but("noise.mp4", frames=1100, sound=NOISE_40_S, sound_args=("-c:a", "aac", "-b:a", "32k"))
    ffmpeg("-ss", "2.4", "-i", str(noise.make(videos)), "-c", "copy", str(path := tmp_path / "copied.mkv"))
    with av.open(str(path)) as container:
        sound = container.streams.audio[0]
        first = next(packet.pts for packet in container.demux(sound))
        assert first is not None
        assert sound.start_time is not None
        assert first < sound.start_time
    cuts_agree(path, CONFIG)
