"""A process that dies before or after any call that it makes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from avs_core import storage

CALLS = ("put_if_absent", "write_bytes", "read_bytes", "open_read", "list_files", "info", "is_file", "delete")


class Crash(BaseException):
    """The process dies here."""


class Crasher:
    """Dies before or after the n-th of the calls that it stands in for."""

    def __init__(self, calls: int, after: bool) -> None:
        self.left = calls
        self._after = after

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self._after:
                raise Crash
            dies = self.left == 0
            result = None
            try:
                result = function(*args, **kwargs)
                return result
            finally:
                if dies:
                    getattr(result, "close", lambda: None)()  # as the end of a process does
                    raise Crash

        return call


def crashing(act: Callable[[str], object], places: Callable[[int], str], after: bool) -> Iterator[str]:
    """Each place after `act` died there at its first, second, … call; ends when it gets through."""
    for number in range(1, 1000):
        place = places(number)
        crasher = Crasher(number, after)
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(storage, name, crasher.wrap(getattr(storage, name)))
            try:
                act(place)
            except Crash:
                pass
            else:
                assert number > 10, "it died nowhere"
                return
        yield place
    raise AssertionError("it never ended")
