import numpy as np
import pyarrow as pa

from avs_core.clip import Clip, Unit, VideoRef
from avs_core.pipelines import wire


def test_a_unit_survives_the_wire() -> None:
    unit = Unit(VideoRef('s3://b/ü "quoted".mp4', 12, "etag-12", 34), 300, 417, 1, 2)
    assert wire.unit_from_text(wire.unit_to_text(unit)) == unit


def test_a_clip_survives_the_wire() -> None:
    random = np.random.default_rng(0)
    clip = Clip(
        frames=random.integers(0, 256, (3, 2, 8, 6, 3), np.uint8),
        frame_index=np.arange(6, dtype=np.int64).reshape(3, 2),
        frame_time_us=np.arange(6, dtype=np.int64).reshape(3, 2) * 40_000,
        waveform=random.random(48_000, np.float32),
        audio_start_s=-1.0,
        height=480,
        width=854,
        shown=75,
        flags=("no_audio", "damaged"),
    )
    back = wire.clip_from_bytes(wire.clip_to_bytes(clip))
    for name in ("frames", "frame_index", "frame_time_us", "waveform"):
        np.testing.assert_array_equal(getattr(back, name), getattr(clip, name))
    assert (back.audio_start_s, back.height, back.width, back.shown) == (-1.0, 480, 854, 75)
    assert back.flags == clip.flags


def test_the_bytes_of_a_clip_are_the_same_each_time() -> None:
    clip = Clip(
        np.zeros((1, 1, 2, 2, 3), np.uint8),
        np.zeros((1, 1), np.int64),
        np.zeros((1, 1), np.int64),
        np.zeros(16_000, np.float32),
        0.0,
        2,
        2,
        25,
    )
    assert wire.clip_to_bytes(clip) == wire.clip_to_bytes(clip)


def test_an_empty_table_keeps_its_schema() -> None:
    schema = pa.schema([("counts", pa.binary()), ("uri", pa.dictionary(pa.int32(), pa.string()))])
    assert wire.table_from_bytes(wire.table_to_bytes(schema.empty_table())).schema == schema
