"""Messages: round trips, and nothing of a broken one is believed."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest

from avs_core.clip import Clip, Unit, VideoRef
from avs_core.errors import AvsError, CorruptMedia, OutcomeUnknown
from avs_core.media import messages
from avs_core.media.config import DecodeConfig


def reader(data: bytes) -> Callable[[int], bytearray]:
    stream = io.BytesIO(data)

    def read(count: int) -> bytearray:
        part = stream.read(count)
        if len(part) < count:
            raise EOFError
        return bytearray(part)

    return read


def test_a_clip_comes_back_as_it_was() -> None:
    random = np.random.default_rng(0)
    clip = Clip(
        frames=random.integers(0, 255, (2, 3, 4, 5, 3), dtype=np.uint8),
        frame_index=np.arange(6).reshape(2, 3),
        frame_time_us=np.arange(6).reshape(2, 3) * 10**9,
        waveform=random.standard_normal(7).astype(np.float32),
        audio_start_s=-1.0,
        height=480,
        width=640,
        shown=50,
        flags=("no_audio",),
    )
    stream = io.BytesIO()
    header, arrays = messages.clip_parts(clip)
    messages.write_message(stream, header, arrays)
    back = messages.clip_from_parts(*messages.read_message(reader(stream.getvalue())))
    for name in messages.ARRAYS:
        assert np.array_equal(getattr(back, name), getattr(clip, name))
    assert (back.audio_start_s, back.height, back.width) == (-1.0, 480, 640)
    assert (back.shown, back.flags) == (50, ("no_audio",))


@pytest.mark.parametrize("fault", [CorruptMedia("a rule; a value; a way out"), OutcomeUnknown("connection lost")])
def test_a_fault_keeps_its_class_and_words(fault: AvsError) -> None:
    back = messages.fault_from_parts(messages.fault_parts(fault))
    assert type(back) is type(fault)
    assert str(back) == str(fault)


def test_units_and_configs_come_back() -> None:
    unit = Unit(VideoRef("s3://b/ü.mp4", 5, "etag", 9), 300, 600, 1, 2)
    assert messages.unit_from_parts(asdict(unit)) == unit
    config = DecodeConfig(size=96, rate=3, audio="dead", reach=(8_000, 24_000))
    wired = json.loads(json.dumps(messages.config_parts(config)))
    assert messages.config_from_parts(wired) == replace(config, size=(96, 96))


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\0\0\0\7{}", b"\xff\xff\xff\xff" + b"x" * 100])
def test_a_broken_message_is_an_end(data: bytes) -> None:
    with pytest.raises(EOFError):
        messages.read_message(reader(data))
