"""How a thread of the driver interrupts its main thread, wherever that waits."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """What raises `KeyboardInterrupt` in the block, called from any thread.

    By a signal of its own: a job that a shell script puts in the background is born deaf to SIGINT. A block that is
    not on the main thread can't be reached: there the main thread is interrupted as by Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: os.kill(os.getpid(), signal.SIGINT)
        return
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
