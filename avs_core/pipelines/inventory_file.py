"""A Parquet or ORC file of an inventory, unpacked in a process of its own that may take little memory.

Both formats may hold next to nothing on disk and more than a machine's memory once they are read, in ways that their
footers need not tell. `python -m avs_core.pipelines.inventory_file PARENT_PID FORMAT PATH COLUMN...` writes what it
reads to stdout as an Arrow stream; what stopped it is the last line of stderr.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

from avs_core.errors import InputError
from avs_core.media.child import die_with_parent
from avs_core.media.memory import limit_memory

Format = Literal["Parquet", "ORC"]

MEMORY_MB = 1024
"""For what is unpacked at a time: a page and a batch of Parquet, a stripe of ORC, which AWS makes 64 MB."""

BATCH = 16_384
"""Rows of Parquet."""

SYSTEM_POOL = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Arrow's other allocators reserve more than they use, and the limit counts what is reserved."""


def file_batches(
    file: io.BufferedIOBase, form: Format, columns: Collection[str], name: str
) -> Generator[pa.RecordBatch, None, None]:
    """The batches of a file, with those of its columns of which the plain name is among `columns`; plain text only.

    Raises `InputError` for a file that is damaged, or that unpacks to more than `MEMORY_MB` at a time.
    """
    with tempfile.TemporaryDirectory(prefix="avs-inventory-") as folder:
        path = Path(folder) / "file"
        with path.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        yield from _unpacked(form, path, columns, name)


def _unpacked(form: Format, path: Path, columns: Collection[str], name: str) -> Generator[pa.RecordBatch, None, None]:
    command = [sys.executable, "-m", "avs_core.pipelines.inventory_file", str(os.getpid()), form, str(path), *columns]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=os.environ | SYSTEM_POOL) as child,
    ):
        assert child.stdout is not None
        broken = False
        try:
            yield from pa.ipc.open_stream(child.stdout)
        except (pa.ArrowException, OSError):  # cut off: the process tells why
            broken = True
            child.stdout.close()
        except GeneratorExit:  # nobody wants the rest
            child.kill()
            raise
        if child.wait() or broken:
            said.seek(0)
            raise InputError(
                f"a file of an inventory must be whole and unpack to at most {MEMORY_MB} MB at a time; {name}: "
                f"{_last_line(said.read()) or f'exit code {child.returncode}'}"
            )


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else ""


def plain(name: str) -> str:
    """Parquet and ORC say `last_modified_date` and `e_tag` where CSV's schema says LastModifiedDate and ETag."""
    return name.replace("_", "").lower()


def main(parent: str, form: str, path: str, *columns: str) -> None:
    """Write to stdout what the file holds."""
    die_with_parent(int(parent))
    limit_memory(MEMORY_MB)
    if form == "ORC":
        opened = orc.ORCFile(path)
        schema = _wanted(opened.schema, columns)
        batches = (opened.read_stripe(stripe, columns=schema.names) for stripe in range(opened.nstripes))
    else:
        opened = pq.ParquetFile(path)
        schema = _wanted(opened.schema_arrow, columns)
        batches = opened.iter_batches(BATCH, columns=schema.names, use_threads=False)
    _write(batches, schema)


def _wanted(schema: pa.Schema, columns: Collection[str]) -> pa.Schema:
    """The columns that are read, under their own names; what is stored by a dictionary is read without."""
    fields = [field for field in schema if plain(field.name) in columns]
    types = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in fields]
    return pa.schema([field.with_type(kind) for field, kind in zip(fields, types, strict=True)])


def _write(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
    with pa.ipc.new_stream(sys.stdout.buffer, schema) as out:
        for batch in batches:
            out.write_batch(pa.record_batch([batch.column(one.name).cast(one.type) for one in schema], schema=schema))


if __name__ == "__main__":
    main(*sys.argv[1:])
