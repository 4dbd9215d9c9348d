"""How long a file says it is, from its first bytes: what is shorter was cut off, even where nothing else shows it.

AVI and Matroska declare the length of what holds their frames; a transport stream has packets of one length.
"""

import io
import struct

HEAD_BYTES = 4096

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
SYNC = 0x47
TS_PACKETS = ((188, 0), (192, 4), (204, 0))
"""(bytes of a packet of an MPEG transport stream, where its sync byte lies): plain, with a time code, with parity."""

SYNCS = 4
"""Packets in a row that must start with a sync byte."""


def missing_bytes(file: io.BufferedIOBase) -> int:
    """How many bytes a file lacks by its own word; 0 if none, or if it does not say. Leaves the file at its start."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if head.startswith(b"RIFF"):
        return max(_riff_end(head) - size, 0)
    if head.startswith(EBML):
        return max(_segment_end(head) - size, 0)
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


def _ts_packet(head: bytes) -> int:
    """Bytes of a packet of a transport stream; 0 for another file."""
    for length, sync in TS_PACKETS:
        places = [sync + i * length for i in range(SYNCS)]
        if places[-1] < len(head) and all(head[place] == SYNC for place in places):
            return length
    return 0
