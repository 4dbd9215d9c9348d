"""One call for each of many objects, in threads: the store's latency is all that most of them cost."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_AHEAD = 16
"""Calls for each thread that are begun or wait, beyond the one whose answer is taken: a list may have millions."""


def in_threads(call: Callable[[Item], Answer], items: Iterable[Item], threads: int) -> Iterator[Answer]:
    """What `call` gives for each item, in their order, that many at once; its error where that answer is due.

    Items are taken as they are needed, `_AHEAD` a thread at most ahead of the answer that is taken.
    `ThreadPoolExecutor.map` takes them all at once and holds 1.6 KB for each.
    """
    waiting: deque[Future[Answer]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) > threads * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Not waited for: left unfinished, it may be collected in one of its own threads, which can't wait for itself.
        pool.shutdown(wait=False, cancel_futures=True)
