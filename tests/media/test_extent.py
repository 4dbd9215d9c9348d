"""What a file says of its own length, against files that have it and files that lost some of it."""

import io
from pathlib import Path

import pytest

from avs_core.media import extent
from avs_core.media.extent import ASF, missing_bytes
from tests.media.clips import Recipe, ffmpeg
from tests.media.recipes import BASE, MP3, MPEG4, MPG, OGV, WMV

FILES = [BASE.but("plain.mkv"), BASE.but("mpeg4.avi", video=MPEG4, sound_args=MP3)]
IN_PIECES = [OGV, MPG, MPG.but("mpeg1.mpg", video=("-c:v", "mpeg1video"), args=("-f", "mpeg")), MPG.but("dvd.vob")]


@pytest.mark.parametrize("recipe", FILES, ids=lambda recipe: recipe.name)
def test_every_lost_byte_is_counted(videos: Path, recipe: Recipe) -> None:
    data = recipe.make(videos).read_bytes()
    assert missing_bytes(io.BytesIO(data)) == 0
    assert missing_bytes(io.BytesIO(data + b"more")) == 0
    for lost in (1, 100, len(data) // 2):
        assert missing_bytes(io.BytesIO(data[:-lost])) == lost


@pytest.mark.parametrize("recipe", IN_PIECES, ids=lambda recipe: recipe.name)
def test_a_last_piece_that_is_cut_off_is_seen(videos: Path, recipe: Recipe) -> None:
    """Wherever a file is cut but between two pieces, where nothing can show it."""
    data = recipe.make(videos).read_bytes()
    for padding in (b"", b"more", b"\0", b"\0" * 5000, b"TAG" + bytes(125)):
        assert missing_bytes(io.BytesIO(data + padding)) == 0
    lost = range(1, 40_000, 37)
    seen = [missing_bytes(io.BytesIO(data[:-some])) > 0 for some in lost]
    assert sum(seen) > 0.98 * len(lost)


def pack(stuffing: int = 0) -> bytes:
    """The header of a pack of an MPEG-2 program stream."""
    return b"\0\0\1\xba\x44" + bytes(8) + bytes([0xF8 | stuffing]) + b"\xff" * stuffing


def packet(payload: bytes, code: int = 0xE0) -> bytes:
    """A packet of a program stream."""
    return b"\0\0\1" + bytes([code]) + len(payload).to_bytes(2, "big") + payload


def page(payload: bytes) -> bytes:
    """A page of Ogg."""
    lacing = bytes([255] * (len(payload) // 255) + [len(payload) % 255])
    return b"OggS" + bytes(22) + bytes([len(lacing)]) + lacing + payload


STREAM = pack() + packet(b"x" * 500) + pack(5) + packet(b"y" * 400) + packet(b"z" * 300, 0xBD)
MARKED = pack() + packet(b"\0\0\1\xba" + b"D" * 40) + pack() + packet(b"y" * 400)
PAGES = page(b"x" * 600) + page(b"OggS" + b"y" * 509) + page(b"")


@pytest.mark.parametrize(
    ("data", "lost"),
    [
        (STREAM, {1: 1, 299: 299, 301: 1, 305: 0, 306: 0}),
        (STREAM + b"\0\0\1\xb9" + b"\xff" * 9, {9: 0}),
        (STREAM + packet(b"\0\0\1\xb7"), {1: 1}),
        (STREAM + b"\0\0\1\xb7", {4: 0, 5: 1}),
        (MARKED, {1: 1, 406: 0, 407: 1, 410: 1}),
        (PAGES, {1: 1, 27: 1, 28: 0, 29: 1, 400: 373 - 1}),
        (page(b"x" * 600) + page(b"")[:-28] + PAGES, {1: 1}),
        (PAGES + b"# OggS text", {}),
    ],
    ids=["stream", "end", "sequence end", "bare sequence end", "marked", "pages", "chained", "text"],
)
def test_pieces_are_followed_to_the_end(data: bytes, lost: dict[int, int]) -> None:
    """So many bytes are missing where so many were cut off; of a header that is cut, one."""
    assert missing_bytes(io.BytesIO(data)) == 0
    assert {some: missing_bytes(io.BytesIO(data[:-some])) for some in lost} == lost


def test_a_mark_within_a_piece_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last bytes that are looked at begin with it."""
    payload, rest = b"\0\0\1\xba" + b"D" * 40, pack() + packet(b"y" * 100)
    monkeypatch.setattr(extent, "TAIL_BYTES", len(payload + rest))
    assert missing_bytes(io.BytesIO(pack() + packet(payload) + rest)) == 0
    monkeypatch.setattr(extent, "TAIL_BYTES", len(payload + rest) - 1)
    assert missing_bytes(io.BytesIO((pack() + packet(payload) + rest)[:-1])) == 1


def test_a_piece_is_followed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though what lies behind all of them is none, so that each would be tried as the first."""
    lengths, followed = extent._piece_length, []

    def counted(data: bytes, at: int) -> int:
        followed.append(at)
        return lengths(data, at)

    monkeypatch.setattr(extent, "_piece_length", counted)
    packs = 2000
    assert missing_bytes(io.BytesIO((b"\0\0\1\xba" + bytes(8)) * packs + b"!")) == 0
    assert len(followed) == packs + 1


def test_an_asf_file_is_held_to_its_packets(videos: Path) -> None:
    """Not to the size in its header, which is stale once a tag is taken out, nor to the index behind them."""
    data = WMV.make(videos).read_bytes()
    start = int.from_bytes(data[16:24], "little")
    end = start + int.from_bytes(data[start + 16 : start + 24], "little")
    for whole in (data, data + b"more", data[:end]):
        assert missing_bytes(io.BytesIO(whole)) == 0
    for lost in (1, 100, 10_000):
        assert missing_bytes(io.BytesIO(data[: end - lost])) == lost
    assert missing_bytes(io.BytesIO(data[: start + 20])) == 0


def test_an_asf_file_that_was_broadcast_does_not_say(videos: Path, tmp_path: Path) -> None:
    """ffmpeg gives one that it could not go back to no length."""
    path = tmp_path / "live.asf"
    path.write_bytes(ffmpeg("-i", str(WMV.make(videos)), "-c", "copy", "-f", "asf", "-"))
    assert missing_bytes(io.BytesIO(path.read_bytes()[:-10_000])) == 0


@pytest.mark.parametrize(("length", "sync"), [(188, 0), (192, 4), (204, 0)])
def test_a_transport_stream_has_whole_packets(length: int, sync: int) -> None:
    packet = bytearray(length)
    packet[sync] = 0x47
    data = bytes(packet) * 40
    assert missing_bytes(io.BytesIO(data)) == 0
    assert missing_bytes(io.BytesIO(data[:-7])) == 7


@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"\0", b"RIFF", b"RIFF\xff\xff\xff\xff", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x84"),
        *(ASF, ASF + bytes(8) + b"\xff" * 300, b"\0\0\1\xba" + b"\x44" * 50),
    ],
)
def test_a_file_that_does_not_say_lacks_nothing(head: bytes) -> None:
    assert missing_bytes(io.BytesIO(head)) == 0
    live = b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + 7 * b"\xff"  # a segment of unknown length
    assert missing_bytes(io.BytesIO(live)) == 0
