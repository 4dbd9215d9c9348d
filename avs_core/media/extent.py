"""How long a file says it is: what is shorter was cut off, even where nothing else shows it.

AVI, Matroska and ASF declare a length at their start. A transport stream has packets of one length, a program stream
and Ogg have pieces that say theirs, so the last of them tells whether it is whole.
"""

import io
import struct
from collections.abc import Callable

HEAD_BYTES = 4096

TAIL_BYTES = 1 << 18
"""Where the last pieces are looked for: the largest, a page of Ogg or a packet of a program stream, has 64 KB."""

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")

SYNC = 0x47
TS_PACKETS = ((188, 0), (192, 4), (204, 0))
"""(bytes of a packet of an MPEG transport stream, where its sync byte lies): plain, with a time code, with parity."""

SYNCS = 4
"""Packets in a row that must start with a sync byte."""

PAGE, PACK = b"OggS", b"\0\0\1\xba"
"""What a page of Ogg and a pack of an MPEG program stream begin with."""

SYSTEM_END, SYSTEM_CODES = 0xB9, range(0xB9, 0x100)
"""Last bytes of the start codes of a program stream's pieces."""


def missing_bytes(file: io.BufferedIOBase) -> int:
    """How many bytes a file lacks by its own word; 0 if none, or if it does not say. Leaves the file at its start.

    Of a file whose pieces are counted, so many bytes of the last one at least.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(HEAD_BYTES)
    missing = _missing(file, head, size)
    file.seek(0)
    return max(missing, 0)


def _missing(file: io.BufferedIOBase, head: bytes, size: int) -> int:
    if head.startswith(b"RIFF"):
        return _riff_end(head) - size
    if head.startswith(EBML):
        return _segment_end(head) - size
    if head.startswith(ASF):
        return _asf_end(file, head, size) - size
    if head.startswith(PAGE):
        return _beyond(file, size, PAGE, _page_length)
    if head.startswith(PACK):
        return _beyond(file, size, PACK, _piece_length)
    length = _ts_packet(head)
    return -size % length if length else 0


def _riff_end(head: bytes) -> int:
    """The end of the first RIFF chunk; a longer AVI has more of them behind it. 0 in a recording never finished."""
    if len(head) < 8:
        return 0
    (length,) = struct.unpack_from("<I", head, 4)
    return 8 + length if 0 < length < 2**32 - 1 else 0


def _segment_end(head: bytes) -> int:
    """The end of a Matroska file's segment; 0 where it is open, as in a live recording."""
    at = 0
    while at + 4 < len(head):
        found = head[at : at + _width(head[at])]
        start, length = _vint(head, at + len(found))
        if length is None:
            return 0
        at = start + length
        if found == SEGMENT:
            return at
    return 0


def _width(first: int) -> int:
    """Bytes of an EBML number, by its first one."""
    return 9 - first.bit_length() if first else 8


def _vint(data: bytes, at: int) -> tuple[int, int | None]:
    """(what follows, the number) of an EBML length; None for an unknown one, or one beyond the data."""
    if at >= len(data):
        return at, None
    width = _width(data[at])
    bits = (1 << 7 * width) - 1
    number = int.from_bytes(data[at : at + width], "big") & bits
    return at + width, None if number == bits or at + width > len(data) else number


def _asf_end(file: io.BufferedIOBase, head: bytes, size: int) -> int:
    """The end of the object that holds the packets, which follows the header; a broadcast gives it no length.

    Not the file size in the file properties: who takes a tag out of a file leaves it as it was.
    """
    start = int.from_bytes(head[16:24], "little")
    if start >= size:
        return 0
    file.seek(start)
    data = file.read(24)
    length = int.from_bytes(data[16:], "little")
    return start + length if len(data) == 24 and data.startswith(ASF_DATA) else 0


def _ts_packet(head: bytes) -> int:
    """Bytes of a packet of a transport stream; 0 for another file."""
    for length, sync in TS_PACKETS:
        places = [sync + i * length for i in range(SYNCS)]
        if places[-1] < len(head) and all(head[place] == SYNC for place in places):
            return length
    return 0


def _beyond(file: io.BufferedIOBase, size: int, mark: bytes, length: Callable[[bytes, int], int]) -> int:
    """By how much the last piece reaches beyond the end, if a whole piece leads to it.

    A mark may also be part of what a piece holds: then what follows it is no piece, and the next mark is tried.
    """
    file.seek(max(size - TAIL_BYTES, 0))
    tail = file.read()
    tried: set[int] = set()
    start = tail.find(mark)
    while start >= 0:
        at, before = start, -1
        while at < len(tail) and at not in tried and (step := length(tail, at)):
            tried.add(at)
            at, before = at + step, at
        if at >= len(tail) and before > start:
            return at - len(tail)
        start = tail.find(mark, start + 1)
    return 0


def _page_length(data: bytes, at: int) -> int:
    """Bytes of a page of Ogg; 0 where none begins. One whose header is cut off has one byte more than there is."""
    rest = data[at : at + 27 + 255]
    if rest[: len(PAGE)] != PAGE[: len(rest)]:
        return 0
    if len(rest) < 27 or len(rest) < 27 + rest[26]:
        return len(rest) + 1
    return 27 + rest[26] + sum(rest[27 : 27 + rest[26]])


def _piece_length(data: bytes, at: int) -> int:
    """Bytes of a pack's header, of a packet, or of the end code of an MPEG-1 or 2 program stream; 0 for none.

    One whose header is cut off has one byte more than there is; zeros at the end are padding.
    """
    rest = data[at : at + 14]
    if len(rest) < 4 or rest[:3] != PACK[:3] or rest[3] not in SYSTEM_CODES:
        return 0
    if rest[3] == SYSTEM_END:
        return 4
    if len(rest) < 6:
        return len(rest) + 1
    if rest[3] != PACK[3]:
        return 6 + int.from_bytes(rest[4:6], "big")
    if rest[4] >> 6 != 1:
        return 12
    return 14 + (rest[13] & 7) if len(rest) == 14 else len(rest) + 1
