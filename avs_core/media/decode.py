"""Bytes to clips behind a guard: decoding runs in a child process that may hang, crash or grow without harm.

A media file is untrusted input to a large C library. The child answers over pipes; the guard watches the clock and the
child's heartbeat, kills it when a limit passes or it dies, starts another for the next request, and says which limit.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import avs_core
from avs_core.clip import Clip, Unit
from avs_core.errors import DecoderCrashed, DecoderUnavailable, DecodeTimeout, MediaError, MediaTooLarge
from avs_core.media.config import DecodeConfig, DecodeLimits
from avs_core.media.messages import (
    Arrays,
    Header,
    clip_from_parts,
    config_parts,
    fault_from_parts,
    read_message,
    write_message,
)
from avs_core.media.probe import MediaInfo

__all__ = ["DecodeConfig", "DecodeLimits", "GuardedDecoder"]

START_S = 60.0
"""A child that has not imported its libraries by then will not."""

PIPE_CHUNK = 1 << 20


class GuardedDecoder:
    """One decoding process that lives as long as its files are well-behaved. Not for several threads at once."""

    def __init__(self, config: DecodeConfig | None = None, limits: DecodeLimits | None = None) -> None:
        """`config` is what `decode` uses when it is given none. The child starts with the first request."""
        self._config = config or DecodeConfig()
        self._limits = limits or DecodeLimits()
        self._child: _Child | None = None

    def probe(self, uri: str) -> MediaInfo:
        """Look at a file. Raises MediaError, or StorageError where the store is at fault."""
        header, _ = self._ask(uri, {"act": "probe", "uri": uri})
        return MediaInfo(**header["info"])

    def decode(self, unit: Unit, config: DecodeConfig | None = None) -> Clip:
        """Decode a unit. Raises MediaError, or StorageError where the store is at fault."""
        request = {"act": "decode", "unit": asdict(unit), "config": config_parts(config or self._config)}
        header, arrays = self._ask(unit.video.uri, request)
        return clip_from_parts(header["clip"], arrays)

    @property
    def pid(self) -> int | None:
        """The decoding process, if one is running."""
        return self._child.pid if self._child and self._child.alive else None

    def close(self) -> None:
        """End the decoding process."""
        if self._child:
            self._child.kill()
            self._child = None

    def __enter__(self) -> "GuardedDecoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, uri: str, request: Header) -> tuple[Header, Arrays]:
        """One request and its answer. Whatever goes wrong leaves no child behind that could answer late."""
        limits = self._limits
        child = self._ready_child()
        child.expect(limits.wall_s, limits.no_progress_s, limits.memory_mb, uri)
        try:
            child.send(
                request
                | {
                    "no_progress_s": limits.no_progress_s,
                    "memory_mb": limits.memory_mb,
                    "max_pixels": limits.max_pixels,
                    "max_hours": limits.max_hours,
                }
            )
            header, arrays = child.answer()
        except BaseException:
            self.close()
            raise
        if "fault" in header:
            fault = fault_from_parts(header)
            if isinstance(fault, MediaTooLarge):
                self.close()  # an allocation failed somewhere: what is left of the process can't be trusted
            raise fault
        return header, arrays

    def _ready_child(self) -> "_Child":
        if self._child and not (self._child.alive and self._child.thread == threading.get_native_id()):
            self.close()
        if not self._child:
            self._child = _Child()
        return self._child


class _Child:
    """The process and its pipes, with deadlines on every read."""

    def __init__(self) -> None:
        self.thread = threading.get_native_id()  # Linux kills the child at the death of this thread, not of the process
        package = str(Path(avs_core.__file__).parents[1])
        search = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "avs_core.media.child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        )
        self.expect(START_S, START_S, None, "(starting)")
        try:
            self.answer()
        except MediaError as fault:  # no file has been named yet: none may be blamed
            self.kill()
            raise DecoderUnavailable(f"a decoding process must start within {START_S:g} s; {fault}") from fault

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def expect(self, wall_s: float, no_progress_s: float, memory_mb: int | None, uri: str) -> None:
        """Set the limits of the next answer."""
        self._wall_s, self._no_progress_s, self._memory_mb, self._uri = wall_s, no_progress_s, memory_mb, uri
        self._deadline = time.monotonic() + wall_s

    def send(self, request: Header) -> None:
        if self._process.stdin is None:
            raise ValueError("the child was started without a pipe")
        try:
            write_message(self._process.stdin, request)  # type: ignore[arg-type]  # a pipe opened for bytes is a BufferedWriter
        except BrokenPipeError:
            raise self._crash() from None

    def answer(self) -> tuple[Header, Arrays]:
        """The next message that is no heartbeat."""
        while True:
            try:
                header, arrays = read_message(self._read)
            except EOFError:
                raise self._crash() from None
            if "beat" not in header:
                return header, arrays

    def _read(self, count: int) -> bytearray:
        """Exactly `count` bytes. Raises EOFError, DecodeTimeout."""
        if self._process.stdout is None:
            raise ValueError("the child was started without a pipe")
        pipe = self._process.stdout.fileno()
        data = bytearray(count)
        view, have = memoryview(data), 0
        while have < count:
            self._await(pipe)
            part = os.readv(pipe, [view[have : have + PIPE_CHUNK]])
            if not part:
                raise EOFError
            have += part
        return data

    def _await(self, pipe: int) -> None:
        """Wait until the pipe can be read. Raises DecodeTimeout."""
        now = time.monotonic()
        stalled = now + self._no_progress_s
        until = min(self._deadline, stalled)
        if not select.select([pipe], [], [], max(until - now, 0))[0]:
            raise self._timeout(self._deadline <= stalled)

    def _timeout(self, wall: bool) -> DecodeTimeout:
        rule = (
            f"decoding may take at most {self._wall_s:g} s (wall_s)"
            if wall
            else f"decoding may stand still for at most {self._no_progress_s:g} s (no_progress_s)"
        )
        return DecodeTimeout(f"{rule}; {self._uri} took longer: raise the limit, or convert the file")

    def _crash(self) -> MediaError:
        """What the dead process tells by its exit status."""
        self.kill(wait_s=1.0)
        status = self._process.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return DecoderCrashed(
            f"a decoding process must survive its file; that of {self._uri} {how}: "
            f"try another decoder, or raise memory_mb if the machine ran out of memory"
        )

    def kill(self, wait_s: float = 0.0) -> None:
        """End the process, at once or after it had `wait_s` to end by itself, and close its pipes."""
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what it still held was for a process that is gone
