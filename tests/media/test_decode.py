"""The guard: every bad file gets its class within its limit, and the next file is decoded as if nothing had been."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avs_core.errors import (
    ConfigError,
    DecoderCrashed,
    DecoderUnavailable,
    DecodeTimeout,
    MediaDenied,
    MediaTooLarge,
    OutcomeUnknown,
)
from avs_core.media.clips import decode_clip
from avs_core.media.decode import DecodeConfig, DecodeLimits, GuardedDecoder
from tests.media.clips import ffmpeg
from tests.media.conftest import MAX_PIXELS, unit_of
from tests.media.recipes import BASE
from tests.silent_s3 import silent_store

LIMITS = DecodeLimits(wall_s=20.0, no_progress_s=5.0)


@pytest.fixture(scope="module")
def decoder() -> Iterator[GuardedDecoder]:
    with GuardedDecoder(limits=LIMITS) as decoder:
        yield decoder


def both(decoder: GuardedDecoder, path: Path) -> None:
    """Look and decode, as the job does."""
    info = decoder.probe(str(path))
    decoder.decode(unit_of(path, 0, info.seconds))


def test_the_guard_changes_nothing(decoder: GuardedDecoder, plain: Path) -> None:
    unit, config = unit_of(plain, 0, 3), DecodeConfig(size=(96, 128), rate=2)
    inside, outside = decode_clip(unit, config, MAX_PIXELS), decoder.decode(unit, config)
    for name in ("frames", "frame_index", "frame_time_us", "waveform"):
        assert np.array_equal(getattr(inside, name), getattr(outside, name))
        assert getattr(inside, name).dtype == getattr(outside, name).dtype
    assert (inside.flags, inside.audio_start_s) == (outside.flags, outside.audio_start_s)
    assert outside.frames.shape == (3, 2, 96, 128, 3)
    assert decoder.probe(plain.as_uri()).seconds == 3


def test_absurd_dimensions_are_refused_before_decoding(decoder: GuardedDecoder, tmp_path: Path) -> None:
    path = tmp_path / "bomb.avi"
    ffmpeg("-f", "lavfi", "-i", "color=s=9000x9000:r=1:d=1", "-c:v", "mjpeg", str(path))
    with pytest.raises(MediaTooLarge, match="9000×9000"):
        decoder.probe(str(path))


def test_a_missing_file_is_denied(decoder: GuardedDecoder, tmp_path: Path) -> None:
    with pytest.raises(MediaDenied, match="still exists"):
        decoder.probe(str(tmp_path / "gone.mp4"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_denied(decoder: GuardedDecoder, plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(plain.read_bytes())
    path.chmod(0)
    with pytest.raises(MediaDenied):
        decoder.probe(str(path))


def test_a_source_that_never_answers_times_out(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    with GuardedDecoder(limits=DecodeLimits(wall_s=20.0, no_progress_s=0.5)) as decoder:
        decoder.probe(str(plain))
        before = decoder.pid
        with pytest.raises(DecodeTimeout, match=r"0\.5 s \(no_progress_s\)"):
            decoder.probe(str(path))
        assert decoder.probe(str(plain)).seconds == 3
        assert decoder.pid != before


@pytest.mark.parametrize(("whole", "halves"), [(0, 0), (1, 0), (1, 1)])
def test_a_store_that_falls_silent_is_at_fault_and_not_the_file(
    whole: int, halves: int, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, when the content is asked for, and in the middle of it."""
    with silent_store(plain.read_bytes(), whole, halves) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        with GuardedDecoder(limits=DecodeLimits(wall_s=60.0, no_progress_s=20.0)) as decoder:
            with pytest.raises(OutcomeUnknown, match="the store took too long"):
                decoder.probe("s3://bucket/plain.mp4")
            assert decoder.pid is not None
            assert decoder.probe(str(plain)).seconds == 3


def test_a_store_that_is_slow_at_every_answer_uses_up_nobodys_patience(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its answers together take longer than the guard waits, each takes less than a read may."""
    path = BASE.but("megabytes.avi", frames=150, video=("-c:v", "rawvideo"), sound="").make(videos)
    with silent_store(path.read_bytes(), whole=100, slow_s=1.6) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        with GuardedDecoder(limits=DecodeLimits(wall_s=60.0, no_progress_s=5.0)) as decoder:
            assert decoder.probe("s3://bucket/megabytes.avi").seconds == 6
        assert len(store.requests) * store.slow_s > 5.0


def test_a_file_that_takes_too_long_times_out(videos: Path) -> None:
    path = BASE.but("many.mp4", frames=1000, sound="").make(videos)
    with GuardedDecoder(limits=DecodeLimits(wall_s=0.05, no_progress_s=20.0)) as decoder:
        with pytest.raises(DecodeTimeout, match=r"0\.05 s \(wall_s\)"):
            decoder.decode(unit_of(path, 0, 40), DecodeConfig(backend="pyav-sequential", rate=16))
        assert decoder.pid is None


def test_a_crash_is_reported_and_survived(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    with GuardedDecoder(limits=LIMITS) as decoder:
        decoder.probe(str(plain))
        pid = decoder.pid
        assert pid is not None
        threading.Timer(0.3, os.kill, (pid, signal.SIGSEGV)).start()
        with pytest.raises(DecoderCrashed, match="killed by SIGSEGV"):
            decoder.probe(str(path))
        assert decoder.probe(str(plain)).seconds == 3


CRASHING_LATE = """
import avs_core.media.probe as probing, os, signal

class Container:
    def __init__(self):
        self.stream = self

    def __del__(self):
        os.kill(os.getpid(), signal.SIGSEGV)

def probe(uri, *rest, look=probing.probe):
    if "guilty" in uri:
        Container()
    return look(uri, *rest)

probing.probe = probe
"""


def test_who_crashes_as_he_lets_go_of_a_file_blames_that_one_and_not_the_next(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CRASHING_LATE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (guilty := tmp_path / "guilty.mp4").write_bytes(plain.read_bytes())
    with GuardedDecoder(limits=LIMITS) as decoder:
        with pytest.raises(DecoderCrashed, match=r"guilty\.mp4 was killed by SIGSEGV"):
            decoder.probe(str(guilty))
        assert decoder.probe(str(plain)).seconds == 3


def test_a_child_that_died_between_two_files_is_replaced(plain: Path) -> None:
    with GuardedDecoder(limits=LIMITS) as decoder:
        decoder.probe(str(plain))
        os.kill(decoder.pid or 0, signal.SIGKILL)
        time.sleep(0.2)
        assert decoder.probe(str(plain)).seconds == 3


@pytest.mark.parametrize(("size", "memory_mb"), [("1920x1080", 12), ("4096x4096", 20), ("4096x4096", 28)])
def test_memory_is_limited(size: str, memory_mb: int, plain: Path, tmp_path: Path) -> None:
    """Also where more is left than most pictures take, and yet not enough for one of these."""
    path = tmp_path / "large.mp4"
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:d=0.4", "-threads", "1", "-preset", "ultrafast", str(path))
    with GuardedDecoder(limits=DecodeLimits(memory_mb=memory_mb)) as decoder:
        with pytest.raises(MediaTooLarge, match=f"at most {memory_mb} MiB"):
            decoder.decode(unit_of(path, 0, 1))
        assert decoder.probe(str(plain)).seconds == 3


def test_closing_ends_the_process(plain: Path) -> None:
    decoder = GuardedDecoder(limits=LIMITS)
    decoder.probe(str(plain))
    pid = decoder.pid
    decoder.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_no_orphan_survives_its_parent(plain: Path, tmp_path: Path) -> None:
    """The parent is killed while its child hangs in a read that no end of stdin can interrupt."""
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    script = f"""
        import threading, time
        from avs_core.media.decode import GuardedDecoder
        decoder = GuardedDecoder()
        decoder.probe({str(plain)!r})
        print(decoder.pid, flush=True)
        decoder.probe({str(pipe)!r})
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    for _ in range(50):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            return
        time.sleep(0.1)
    pytest.fail("the decoding process outlived its parent")


@pytest.mark.parametrize(
    ("kind", "settings", "word"),
    [
        (DecodeConfig, {"size": 0}, "model size"),
        (DecodeConfig, {"rate": 0}, "rate"),
        (DecodeLimits, {"wall_s": 0.0}, "wall_s"),
        (DecodeLimits, {"memory_mb": -1}, "memory_mb"),
        (DecodeLimits, {"max_hours": 0.0}, "max_hours"),
    ],
)
def test_impossible_settings_are_refused(kind: type, settings: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        kind(**settings)


@pytest.mark.integration
def test_a_video_on_s3_is_decoded_as_one_on_disk(s3_bucket: str, plain: Path) -> None:
    from avs_core import storage
    from avs_core.clip import Unit, VideoRef

    uri = f"{s3_bucket}/videos/plain.mp4"
    storage.write_bytes(uri, plain.read_bytes())
    with GuardedDecoder(limits=LIMITS) as decoder:
        assert decoder.probe(uri) == decoder.probe(str(plain))
        there, here = decoder.decode(Unit(VideoRef(uri, 0, ""), 0, 3)), decoder.decode(unit_of(plain, 0, 3))
        assert np.array_equal(there.frames, here.frames)
        assert np.array_equal(there.waveform, here.waveform)
        with pytest.raises(MediaDenied):
            decoder.probe(f"{s3_bucket}/videos/gone.mp4")


def test_a_process_that_cannot_start_blames_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with GuardedDecoder() as decoder, pytest.raises(DecoderUnavailable, match="must start"):
        decoder.probe("/nowhere.mp4")
