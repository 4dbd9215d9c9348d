"""Numbers as a person reads them."""


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless it is one: 1 video, 2 videos."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(number: int) -> str:
    """Bytes in the largest unit that leaves one before the point: 512 bytes, 44.7 kB, 1.2 GB (powers of ten)."""
    if number < 1000:
        return counted(number, "byte")
    shown, unit = number / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if shown < 999.95:
            break
        shown, unit = shown / 1000, larger
    return f"{shown:.1f} {unit}"
