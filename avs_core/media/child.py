"""The decoding process: `python -m avs_core.media.child PARENT_PID`, requests on stdin, answers on stdout.

It dies with its parent. A fault of a file is an answer; anything unforeseen ends the process, which its guard reports.
"""

import ctypes
import gc
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

from avs_core import storage
from avs_core.errors import AvsError, MediaTooLarge
from avs_core.media.clips import decode_clip
from avs_core.media.memory import limit_memory
from avs_core.media.messages import (
    Arrays,
    Header,
    clip_parts,
    config_from_parts,
    fault_parts,
    read_message,
    unit_from_parts,
    write_message,
)
from avs_core.media.probe import probe

BEAT_S = 0.2
"""Progress is reported at most this often."""

STORE_SHARE = 0.5
"""Of `no_progress_s`, what one read of the store may take with all its repeats (30 of 60 s: two requests that are not
answered in 15 s each). It leaves the other half to what went well before it, so that a store that stands still is at
fault before the guard's patience is over and the file is: for the store work is done again, for a file never."""

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer requests until stdin ends."""
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not break the protocol
    gc.freeze()  # what was imported stays: to look through it at each file costs a third of a probe
    write_message(answers, {"ready": True})
    while True:
        try:
            request, _ = read_message(_read_exactly)
        except EOFError:
            return
        answer(request, answers)


def die_with_parent(parent: int) -> None:
    """Ask Linux for SIGKILL at the parent's death; elsewhere the end of stdin has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent died before its decoding process was ready")


def answer(request: Header, answers: io.BufferedIOBase) -> None:
    """Do what one request asks and write its answer, with heartbeats before it.

    The file is let go of before that: who crashes over it then is asked for it still, and no other file is blamed.
    """
    header, arrays = _done(request, Heart(answers))
    # A container and its streams refer to each other; left to Python's own time they pile up, frames and all.
    gc.collect()
    write_message(answers, header, arrays)


def _done(request: Header, beat: Callable[[], None]) -> tuple[Header, Arrays]:
    limit_memory(request["memory_mb"])
    try:
        storage.hurry(_uri(request), STORE_SHARE * request["no_progress_s"])
        if request["act"] == "probe":
            info = probe(request["uri"], request["max_pixels"], request["max_hours"], beat)
            return {"info": asdict(info)}, {}
        unit, config = unit_from_parts(request["unit"]), config_from_parts(request["config"])
        header, arrays = clip_parts(decode_clip(unit, config, request["max_pixels"], beat))
        return {"clip": header}, arrays
    except MemoryError:
        return fault_parts(too_much_memory(request)), {}
    except AvsError as fault:
        return fault_parts(fault), {}


def too_much_memory(request: Header) -> MediaTooLarge:
    """What to say when an allocation failed."""
    return MediaTooLarge(
        f"decoding may take at most {request['memory_mb']} MiB; {_uri(request)} needs more: "
        f"raise memory_mb, or cut the video into shorter units"
    )


def _uri(request: Header) -> str:
    return str(request["uri"] if request["act"] == "probe" else request["unit"]["video"]["uri"])


class Heart:
    """Reports progress, not oftener than needed."""

    def __init__(self, answers: io.BufferedIOBase) -> None:
        self._answers = answers
        self._last = time.monotonic()

    def __call__(self) -> None:
        if (now := time.monotonic()) - self._last >= BEAT_S:
            self._last = now
            write_message(self._answers, {"beat": True})


def _read_exactly(count: int) -> bytearray:
    data = sys.stdin.buffer.read(count)
    if len(data) < count:
        raise EOFError
    return bytearray(data)


if __name__ == "__main__":
    main()
