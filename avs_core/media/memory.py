"""How much memory a decoding process may take, and how much of it is left. On Linux; elsewhere there is no limit."""

import math
import resource
import sys
from pathlib import Path


def limit_memory(memory_mb: int) -> None:
    """Allow this much writable memory on top of what is held now; Linux counts heap and private maps."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = _held() + (memory_mb << 20)
        resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def memory_left() -> float:
    """Bytes until the limit; infinite without one."""
    soft = resource.getrlimit(resource.RLIMIT_DATA)[0] if sys.platform == "linux" else resource.RLIM_INFINITY
    return math.inf if soft == resource.RLIM_INFINITY else float(soft - _held())


def _held() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")) << 10
