"""Numbers as a person reads them."""


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless it is one: 1 video, 2 videos."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
