"""How units, clips and tables travel between the stages: as columns of plain bytes and text.

Arrays of different shapes in one column make Ray Data fall back to pickled objects; bytes stay Arrow.
"""

import io
import json
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from avs_core.clip import Clip, Unit, VideoRef


def unit_to_text(unit: Unit) -> str:
    """A unit as JSON."""
    return json.dumps(asdict(unit), sort_keys=True)


def unit_from_text(text: str) -> Unit:
    """The inverse of `unit_to_text`."""
    fields = json.loads(text)
    return Unit(**{**fields, "video": VideoRef(**fields["video"])})


def clip_to_bytes(clip: Clip) -> bytes:
    """A clip as an uncompressed npz."""
    facts = {
        "audio_start_s": clip.audio_start_s,
        "height": clip.height,
        "width": clip.width,
        "shown": clip.shown,
        "flags": list(clip.flags),
    }
    buffer = io.BytesIO()
    np.savez(
        buffer,
        frames=clip.frames,
        frame_index=clip.frame_index,
        frame_time_us=clip.frame_time_us,
        waveform=clip.waveform,
        facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
    )
    return buffer.getvalue()


def clip_from_bytes(data: bytes) -> Clip:
    """The inverse of `clip_to_bytes`; nothing pickled is read."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        facts = json.loads(arrays["facts"].tobytes())
        return Clip(
            frames=arrays["frames"],
            frame_index=arrays["frame_index"],
            frame_time_us=arrays["frame_time_us"],
            waveform=arrays["waveform"],
            audio_start_s=facts["audio_start_s"],
            height=facts["height"],
            width=facts["width"],
            shown=facts["shown"],
            flags=tuple(facts["flags"]),
        )


def table_to_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]  # pyarrow is untyped


def table_from_bytes(data: bytes) -> pa.Table:
    """The inverse of `table_to_bytes`."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()
