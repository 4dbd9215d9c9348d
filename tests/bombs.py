"""Small files that unpack to more than a machine holds, each opened in a process with little memory."""

import gzip
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

MB = 1 << 20
SPARE = 8 << 30
"""Address space beyond what the process has once it has imported everything, bytes: allocators reserve some of it."""

GROWTH = 1 << 30
"""Bytes of memory that it may really use."""

CHILD = """
import resource, sys
from pathlib import Path
from avs_core.errors import AvsError
from avs_core.archive.schema import read_table
from avs_core.datasets.avsbench.pictures import decode
from avs_core.datasets.benchmark.manifest import from_parquet
from avs_core.datasets.containers import read_qt_resources
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.inventory_file import file_batches
from avs_core.training.tensor_bundle import read_tensors
path = sys.argv[2]
open_it = {
    "manifest": lambda: find_videos([path]),
    "inventory": lambda: sum(1 for _ in file_batches(open(path, "rb"), Path(path).stem, ["key"], path)),
    "archive": lambda: read_table(Path(path).read_bytes(), path),
    "picture": lambda: decode(Path(path).read_bytes(), path),
    "benchmark": lambda: from_parquet(Path(path).read_bytes()),
    "container": lambda: read_qt_resources(Path(path).read_bytes()),
    "tensors": lambda: read_tensors(Path(path)),
}[sys.argv[1]]
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[3]),) * 2)
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
before = peak()
try:
    open_it()
except AvsError as error:
    print(type(error).__name__, error)
print(peak() - before, file=sys.stderr)
"""


def opened(kind: str, path: Path, growth: int = GROWTH) -> str:
    """What a process with little memory says of the file: the name of the error, and its message."""
    command = [sys.executable, "-c", CHILD, kind, str(path), str(SPARE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr) < growth
    return done.stdout


def sparse(path: Path, size: int) -> None:
    """A file of so many bytes that takes no room on disk."""
    with path.open("wb") as file:
        file.truncate(size)


def repeated(path: Path, value: str, rows: int, column: str = "uri") -> None:
    """A Parquet file of one long value, many times: it is stored once."""
    index = pa.array([0] * 1024, pa.int32())
    part = pa.table({column: pa.DictionaryArray.from_arrays(index, [value])})
    with pq.ParquetWriter(path, part.schema, compression="zstd") as writer:
        whole = pa.concat_tables([part] * (rows // 1024))
        writer.write_table(whole, row_group_size=rows)


def zeros(path: Path, column: str, megabytes: int) -> None:
    """A Parquet file of zeros without a dictionary, packed to next to nothing; written a row group a time."""
    part = pa.table({column: pa.array(["0" * MB] * 16)})
    with pq.ParquetWriter(path, part.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(megabytes // 16):
            writer.write_table(part)


def stripe(path: Path, megabytes: int) -> None:
    """An ORC file of one column and one stripe, which holds one long value again and again."""
    part = pa.table({"key": pa.array(["0" * MB] * 16)})
    with orc.ORCWriter(path, compression="zlib", stripe_size=1 << 40) as writer:
        for _ in range(megabytes // 16):
            writer.write(part)


def qt_resource(unpacked_mb: int) -> bytes:
    """A Qt resource file of one file, deflated."""
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(MB)) for _ in range(unpacked_mb)) + packer.flush()
    raw = struct.pack(">I", unpacked_mb * MB) + packed
    name = struct.pack(">HI", 1, 0) + "a".encode("utf-16-be")
    head = 20
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHHHI", 0, 1, 0, 0, 0)
    data = struct.pack(">I", len(raw)) + raw
    starts = head, head + len(tree), head + len(tree) + len(data)
    return b"qres" + struct.pack(">4I", 1, *starts) + tree + data + name


def png(width: int, height: int) -> bytes:
    """A white picture of one bit a pixel, whole and small."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def inventory_line(megabytes: int) -> bytes:
    """A gzip file of one endless line."""
    return gzip.compress(b"a" * MB) * megabytes


def nested(depth: int) -> bytes:
    """JSON that a recursive reader falls over."""
    return b"[" * depth + b"]" * depth
