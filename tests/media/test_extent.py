"""What a file says of its own length, against files that have it and files that lost some of it."""

import io
from pathlib import Path

import pytest

from avs_core.media.extent import missing_bytes
from tests.media.clips import Recipe
from tests.media.recipes import BASE, MP3, MPEG4

FILES = [BASE.but("plain.mkv"), BASE.but("mpeg4.avi", video=MPEG4, sound_args=MP3)]


@pytest.mark.parametrize("recipe", FILES, ids=lambda recipe: recipe.name)
def test_every_lost_byte_is_counted(videos: Path, recipe: Recipe) -> None:
    data = recipe.make(videos).read_bytes()
    assert missing_bytes(io.BytesIO(data)) == 0
    assert missing_bytes(io.BytesIO(data + b"more")) == 0
    for lost in (1, 100, len(data) // 2):
        assert missing_bytes(io.BytesIO(data[:-lost])) == lost


@pytest.mark.parametrize(("length", "sync"), [(188, 0), (192, 4), (204, 0)])
def test_a_transport_stream_has_whole_packets(length: int, sync: int) -> None:
    packet = bytearray(length)
    packet[sync] = 0x47
    data = bytes(packet) * 40
    assert missing_bytes(io.BytesIO(data)) == 0
    assert missing_bytes(io.BytesIO(data[:-7])) == 7


@pytest.mark.parametrize(
    "head", [b"", b"\0", b"RIFF", b"RIFF\xff\xff\xff\xff", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x84"]
)
def test_a_file_that_does_not_say_lacks_nothing(head: bytes) -> None:
    assert missing_bytes(io.BytesIO(head)) == 0
    live = b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + 7 * b"\xff"  # a segment of unknown length
    assert missing_bytes(io.BytesIO(live)) == 0
