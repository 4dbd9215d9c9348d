"""Readers of the two container formats that some source packages hide their files in.

`.rcc` is Qt's binary resource file (big-endian), `.cat` the sound archive of Transport Tycoon and OpenTTD
(little-endian). Both are read from bytes into a mapping of names to contents.
"""

import struct
import zlib

from avs_core.errors import UnreadableMedia

_ZLIB, _DIRECTORY, _ZSTD = 1, 2, 4
_NEW_NAMES = 0x8000_0000
MAX_BYTES = 256 << 20
"""Of one packed file, unpacked."""


def read_qt_resources(data: bytes) -> dict[str, bytes]:
    """Every file of a Qt resource file by its absolute path inside it.

    Layout: `qres`, version, then the offsets of tree, data and names. A node of the tree is 14 bytes in
    version 1 and 22 (with a time stamp) from version 2: name offset u32, flags u16, then for a directory the
    count and index of its children (u32 each), for a file its locale (u32) and data offset (u32).

    Raises UnreadableMedia if `data` is no such file or its offsets leave it.
    """
    if data[:4] != b"qres":
        raise UnreadableMedia(f"a Qt resource file starts with b'qres', this one with {data[:4]!r}")
    files: dict[str, bytes] = {}
    stack = [(0, "")]
    try:
        version, tree, payload, names = struct.unpack_from(">4I", data, 4)
        node_size = 14 if version == 1 else 22
        while stack:
            index, path = stack.pop()
            node = tree + index * node_size
            flags, first, second = struct.unpack_from(">HII", data, node + 4)
            if flags & _DIRECTORY:
                children = range(second, second + first)
                stack += [(child, f"{path}/{_qt_name(data, tree, names, node_size, child)}") for child in children]
            else:
                files[path] = _qt_payload(data, payload + second, flags)
    except (struct.error, zlib.error, UnicodeDecodeError) as error:
        raise UnreadableMedia(f"a Qt resource file is damaged: {error}") from error
    return files


def _qt_name(data: bytes, tree: int, names: int, node_size: int, index: int) -> str:
    (offset,) = struct.unpack_from(">I", data, tree + index * node_size)
    start = names + offset
    (length,) = struct.unpack_from(">H", data, start)
    return data[start + 6 : start + 6 + 2 * length].decode("utf-16-be")  # 2 bytes of length, 4 of hash


def _qt_payload(data: bytes, start: int, flags: int) -> bytes:
    (size,) = struct.unpack_from(">I", data, start)
    raw = data[start + 4 : start + 4 + size]
    if flags & _ZLIB:
        return _checked(zlib.decompressobj().decompress(raw[4:], MAX_BYTES + 1))  # the first 4 bytes: unpacked size
    if flags & _ZSTD:
        import zstandard  # of the `composer` extra: only these packages need it

        return _checked(zstandard.ZstdDecompressor().stream_reader(raw).read(MAX_BYTES + 1))
    return raw


def _checked(unpacked: bytes) -> bytes:
    if len(unpacked) > MAX_BYTES:
        raise UnreadableMedia(f"a file of a Qt resource file may have at most {MAX_BYTES} bytes; one unpacks to more")
    return unpacked


def read_sound_catalogue(data: bytes) -> list[tuple[str, bytes]]:
    """The (description, RIFF file) pairs of a `.cat` sound archive, in the order of its index.

    Layout: a table of (offset u32, size u32), as many as fit before the first offset, whose highest bit is a
    flag; at each offset the length of the description, the description, then `size` bytes of RIFF.

    Raises UnreadableMedia if the table or a sound leaves the file, or a sound is no RIFF.
    """
    if len(data) < 8:
        raise UnreadableMedia(f"a sound archive starts with a table of 8-byte entries, this one has {len(data)} bytes")
    first = struct.unpack_from("<I", data)[0] & ~_NEW_NAMES
    if first > len(data):
        raise UnreadableMedia(f"a sound archive's table says {first} bytes, the file has {len(data)}")
    sounds = []
    for entry in range(0, first, 8):
        offset, size = struct.unpack_from("<II", data, entry)
        offset &= ~_NEW_NAMES
        if offset >= len(data):
            raise UnreadableMedia(f"sound {entry // 8} starts at byte {offset} of {len(data)}")
        text_end = offset + 1 + data[offset]
        riff = data[text_end : text_end + size]
        if riff[:4] != b"RIFF" or len(riff) != size:
            raise UnreadableMedia(f"sound {entry // 8} at byte {offset} is not {size} bytes of RIFF")
        sounds.append((data[offset + 1 : text_end].rstrip(b"\0").decode("utf-8", "replace"), riff))
    return sounds
