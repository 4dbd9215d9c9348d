"""The two container readers against files built here from the formats' descriptions."""

import struct
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from avs_core.datasets.containers import read_qt_resources, read_sound_catalogue
from avs_core.errors import UnreadableMedia


def build_qt_resources(files: dict[str, tuple[bytes, int]], version: int) -> bytes:
    """A resource file with one folder `d` that holds `files`: name → (content, flag 0, 1 (zlib) or 4 (zstd))."""
    payload, names, nodes = b"", b"", b""
    tail = b"\0" * 8 if version > 1 else b""

    def add_name(text: str) -> int:
        nonlocal names
        offset = len(names)
        names += struct.pack(">HI", len(text.encode("utf-16-be")) // 2, 0) + text.encode("utf-16-be")
        return offset

    nodes += struct.pack(">IHII", 0, 2, 1, 1) + tail  # the root: one child, at index 1
    nodes += struct.pack(">IHII", add_name("d"), 2, len(files), 2) + tail
    for name, (content, flag) in files.items():
        packed = content
        if flag == 1:
            packed = struct.pack(">I", len(content)) + zlib.compress(content)
        elif flag == 4:
            packed = zstandard.compress(content)
        nodes += struct.pack(">IHII", add_name(name), flag, 0, len(payload)) + tail
        payload += struct.pack(">I", len(packed)) + packed
    header = 20 if version < 3 else 24
    tree = header
    data = tree + len(nodes)
    start = struct.pack(">4s4I", b"qres", version, tree, data, data + len(payload))
    return start.ljust(header, b"\0") + nodes + payload + names


def build_sound_catalogue(sounds: list[tuple[str, bytes]]) -> bytes:
    """A `.cat` file with the flag that newer archives set in every offset."""
    table, body = b"", b""
    for text, riff in sounds:
        name = text.encode() + b"\0"
        table += struct.pack("<II", (8 * len(sounds) + len(body)) | 0x8000_0000, len(riff))
        body += bytes([len(name)]) + name + riff + b"\0tail"
    return table + body


@given(
    files=st.dictionaries(
        st.text("abcxyzäß_.0", min_size=1, max_size=12),
        st.tuples(st.binary(max_size=300), st.sampled_from([0, 1, 4])),
        min_size=1,
        max_size=6,
    ),
    version=st.sampled_from([1, 2, 3]),
)
def test_qt_resources_come_back_whole(files: dict[str, tuple[bytes, int]], version: int) -> None:
    found = read_qt_resources(build_qt_resources(files, version))
    assert found == {f"/d/{name}": content for name, (content, _) in files.items()}


def test_damaged_qt_resources_are_unreadable() -> None:
    whole = build_qt_resources({"a.txt": (b"x" * 100, 1)}, 3)
    with pytest.raises(UnreadableMedia, match="qres"):
        read_qt_resources(b"RIFF" + whole[4:])
    with pytest.raises(UnreadableMedia, match="damaged"):
        read_qt_resources(whole[: len(whole) - 20])
    with pytest.raises(UnreadableMedia, match="damaged"):
        read_qt_resources(whole[:10])


@given(st.lists(st.tuples(st.text("abc \"':", max_size=40), st.binary(max_size=60)), min_size=1, max_size=5))
def test_sounds_come_back_in_order(sounds: list[tuple[str, bytes]]) -> None:
    sounds = [(text, b"RIFF" + body) for text, body in sounds]
    assert read_sound_catalogue(build_sound_catalogue(sounds)) == sounds


def test_damaged_sound_catalogues_are_unreadable() -> None:
    whole = build_sound_catalogue([("a", b"RIFF1234"), ("b", b"RIFF5678")])
    with pytest.raises(UnreadableMedia, match="bytes"):
        read_sound_catalogue(whole[:4])
    with pytest.raises(UnreadableMedia, match="table says 16"):
        read_sound_catalogue(whole[:12])
    with pytest.raises(UnreadableMedia, match="sound 1"):
        read_sound_catalogue(whole[:-10])
    with pytest.raises(UnreadableMedia, match="RIFF"):
        read_sound_catalogue(whole.replace(b"RIFF5678", b"OggS5678"))
