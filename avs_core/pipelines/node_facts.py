"""What one machine can do, looked at from a process on it, without Ray."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import avs_core
from avs_core.clip import Unit
from avs_core.errors import AvsError
from avs_core.media.config import Backend, DecodeConfig, DecodeLimits
from avs_core.media.decode import GuardedDecoder
from avs_core.pipelines.inputs import find_videos

LIBRARIES = ("ray", "torch", "av", "pyarrow", "numpy")
DECODERS: tuple[Backend, ...] = ("pyav", "decord")
CLIP = Path(avs_core.__file__).parent / "builtin/demo/silence.mp4"
DECODE_LIMITS = DecodeLimits(wall_s=60.0)
TORCH_S = 180
SHARED_MEMORY = Path("/dev/shm")
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""That of this container, in either version of control groups."""

ASK_TORCH = """
import json, torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
for i in range(len(names)):
    assert torch.ones(8, 8, device=f"cuda:{i}").sum().item() == 64
print(json.dumps(names))
"""


@dataclass(frozen=True)
class NodeFacts:
    """One machine. Sizes in bytes.

    versions   of Python, of `LIBRARIES`, and `code`: a hash over the sources of this package
    gpus       names of the GPUs that torch computed on; `gpu_fault` is why it could not look, or empty
    decoders   why a backend can't decode a clip that ships with the package; empty where it can
    """

    versions: dict[str, str]
    gpus: tuple[str, ...]
    gpu_fault: str
    decoders: dict[str, str]
    disk_free: int
    disk_total: int
    shared_memory: int
    memory_available: int


def look(spill_folder: str) -> NodeFacts:
    """Look at this machine; `spill_folder` lies on the disk that Ray spills to."""
    gpus, gpu_fault = _gpus()
    disk = shutil.disk_usage(spill_folder)
    return NodeFacts(
        versions=versions(),
        gpus=gpus,
        gpu_fault=gpu_fault,
        decoders={backend: _decoder_fault(backend) for backend in DECODERS},
        disk_free=disk.free,
        disk_total=disk.total,
        shared_memory=shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else 0,
        memory_available=_memory_available(),
    )


def now() -> float:
    """Seconds since 1970 on the clock of this machine."""
    return time.time()


def versions() -> dict[str, str]:
    """What must be the same on every machine of a cluster."""
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}, "code": _code_hash()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


@cache
def _code_hash() -> str:
    """A hash over the package's sources: two builds of one version may differ."""
    root, digest = Path(avs_core.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _gpus() -> tuple[tuple[str, ...], str]:
    """Asked in a process of its own: CUDA that hangs or aborts is a finding, and must not be held afterwards."""
    environment = dict(os.environ)
    if not environment.get("CUDA_VISIBLE_DEVICES"):
        environment.pop("CUDA_VISIBLE_DEVICES", None)  # Ray hides GPUs from whoever asked it for none
    command = [sys.executable, "-c", ASK_TORCH]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TORCH_S, check=True)
    except subprocess.CalledProcessError as error:
        return (), (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        return (), f"torch did not answer in {TORCH_S} s"
    return tuple(json.loads(done.stdout)), ""


def _decoder_fault(backend: Backend) -> str:
    unit = Unit(find_videos([str(CLIP)])[0], 0, 1)
    try:
        with GuardedDecoder(DecodeConfig(size=32, backend=backend), DECODE_LIMITS) as decoder:
            decoder.decode(unit)
    except AvsError as fault:
        return str(fault)
    return ""


def _memory_available() -> int:
    """What Linux can give away without swapping; in a container no more than its limit, of which some is in use."""
    of_host = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            of_host = int(line.split()[1]) * 1024
    limits = [path.read_text().strip() for path in MEMORY_LIMITS if path.is_file()]
    return min([of_host, *(int(limit) for limit in limits if limit.isdecimal())])  # "max": none
