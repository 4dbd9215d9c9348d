"""Clips below a root: the same bytes whoever writes them, and nothing twice."""

import json
from pathlib import Path

import pytest

from avs_core import storage
from avs_core.datasets.benchmark.plan import ClipSpec
from avs_core.datasets.benchmark.writing import ClipWriter
from avs_core.datasets.sources import Sources

SPEC = ClipSpec("s4_train_00001", "s4", "train", "alone", 0)


def _tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tiny_sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("written")
    ClipWriter(str(root), "v1", tiny_sources).write(SPEC)
    return root


def test_a_clip_is_a_pure_function_of_its_spec(written: Path, tiny_sources: Sources, tmp_path: Path) -> None:
    writer = ClipWriter(str(tmp_path), "v1", tiny_sources)
    writer.write(ClipSpec("ms3_test_00001", "ms3", "test", "chorus", 900))
    writer.write(SPEC)
    here = _tree(tmp_path)
    assert {name: here[name] for name in _tree(written)} == _tree(written)


def test_in_s4_training_the_first_frame_alone_is_labelled(written: Path) -> None:
    names = list(_tree(written))
    category = json.loads((written / "instances/s4/train/s4_train_00001.json").read_text())["clip"]["categories"][0]
    folder = f"train/{category}/s4_train_00001"
    assert [name for name in names if "gt_masks" in name] == [f"s4_data/gt_masks/{folder}/s4_train_00001_1.png"]
    assert sum(f"s4_data/visual_frames/{folder}/" in name for name in names) == 5
    assert f"s4_data/audio_wav/{folder}.wav" in names


def test_what_is_there_is_left_alone_and_what_is_damaged_is_written_again(
    written: Path, tiny_sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, row = _tree(written), ClipWriter(str(written), "v1", tiny_sources).write(SPEC)
    writes: list[str] = []
    write = storage.write_bytes
    monkeypatch.setattr(storage, "write_bytes", lambda uri, data: (writes.append(uri), write(uri, data)))
    assert ClipWriter(str(written), "v1", tiny_sources).write(SPEC) == row
    assert writes == []
    (wav,) = written.rglob("*.wav")
    wav.write_bytes(wav.read_bytes()[:-2])
    assert ClipWriter(str(written), "v1", tiny_sources).write(SPEC) == row
    assert _tree(written) == before
    assert writes
