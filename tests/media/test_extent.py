"""What a file says of its own length, against files that have it and files that lost some of it."""

import io
from pathlib import Path

import pytest

from avs_core.media.extent import ASF, missing_bytes
from tests.media.clips import Recipe, ffmpeg
from tests.media.recipes import BASE, MP3, MPEG4, MPG, OGV, WMV

FILES = [BASE.but("plain.mkv"), BASE.but("mpeg4.avi", video=MPEG4, sound_args=MP3), WMV]
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
    """Wherever a file is cut but between two pieces, where nothing can show it, and within a mark's first bytes."""
    data = recipe.make(videos).read_bytes()
    for padding in (b"", b"more", b"\0", b"\0" * 5000):
        assert missing_bytes(io.BytesIO(data + padding)) == 0
    lost = range(1, 40_000, 37)
    seen = [missing_bytes(io.BytesIO(data[:-some])) > 0 for some in lost]
    assert sum(seen) > 0.98 * len(lost)


def test_an_asf_file_that_was_broadcast_does_not_say(videos: Path, tmp_path: Path) -> None:
    """ffmpeg marks one that it could not go back to so."""
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
