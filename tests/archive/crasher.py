"""A process that dies before or after any call that it makes."""

from collections.abc import Callable
from typing import Any


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
            try:
                return function(*args, **kwargs)
            finally:
                if dies:
                    raise Crash

        return call
