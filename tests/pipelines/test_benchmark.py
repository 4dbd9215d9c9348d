"""A whole benchmark: complete, readable without our code, resumed, the same on Ray and on S3."""

import io
import json
import resource
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco

from avs_core import storage
from avs_core.datasets.benchmark.plan import plan_clips
from avs_core.datasets.opening import open_dataset
from avs_core.datasets.sources import Sources
from avs_core.errors import ConfigError, InputError, NotApplied, StorageError
from avs_core.pipelines.benchmark import SourceSet, build_benchmark
from tests.datasets.conftest import tiny_sources

__all__ = ["tiny_sources"]

PLAN = plan_clips("tiny", {"train": 3, "test": 1}, 0)


def _tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.fixture(scope="module")
def source_set(tiny_sources: Sources) -> SourceSet:
    return SourceSet(tiny_sources.root, tiny_sources.catalogue)


@pytest.fixture(scope="module")
def built(source_set: SourceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built") / "bench"
    done = build_benchmark(PLAN, str(root), source_set, workers=1)
    assert (done.out, done.clips) == (str(root), 4)
    return root


def test_every_row_of_the_manifest_has_its_files(built: Path) -> None:
    rows = pq.read_table(built / "manifest.parquet").to_pylist()
    assert [row["clip_id"] for row in rows] == [spec.clip_id for spec in PLAN.clips]
    for row in rows:
        split, name = row["split"], row["clip_id"]
        folder = f"{split}/{row['categories'][0]}" if row["setting"] == "s4" else split
        data = built / f"{row['setting']}_data"
        count = 1 if (row["setting"], split) == ("s4", "train") else 5
        assert len(list((data / "gt_masks" / folder / name).iterdir())) == count
        with wave.open(str(data / "audio_wav" / folder / f"{name}.wav")) as file:
            assert (file.getframerate(), file.getnframes()) == (16_000, 80_000)
        frames = data / "visual_frames" / (f"{folder}/{name}" if row["setting"] == "s4" else name)
        mark = "" if row["setting"] == "s4" else ".mp4"
        for second in range(1, 6):
            assert _picture(frames / f"{name}{mark}_{second}.png").shape == (224, 224, 3)
        assert (built / row["video"]).is_file()


def test_the_metadata_files_have_the_official_columns(built: Path) -> None:
    s4 = pyarrow.csv.read_csv(built / "s4_meta_data.csv")
    ms3 = pyarrow.csv.read_csv(built / "ms3_meta_data.csv")
    assert s4.column_names == ["name", "start_time", "category", "split"]
    assert ms3.column_names[0] == "video_id"
    assert set(s4["name"].to_pylist() + ms3["video_id"].to_pylist()) == {spec.clip_id for spec in PLAN.clips}
    categories = json.loads((built / "categories.json").read_text())
    assert set(s4["category"].to_pylist()) <= set(categories)


def test_masks_are_the_union_of_what_sounds(built: Path) -> None:
    for path in (built / "instances").rglob("*.json"):
        truth = json.loads(path.read_text())
        name = truth["clip_id"]
        for file in (built / f"{truth['clip']['setting']}_data/gt_masks").rglob(f"{name}_*.png"):
            second, mask = int(file.stem.rsplit("_", 1)[1]) - 1, _picture(file)
            assert set(np.unique(mask)) <= {0, 255}
            union = np.zeros((224, 224), bool)
            for one in truth["objects"]:
                if one["sounding"][second]:
                    union |= coco.decode(one["rle"][second]).astype(bool)
            assert np.array_equal(mask > 0, union)


def test_it_is_a_labelled_set(built: Path) -> None:
    found = open_dataset(str(built))
    refs = {ref.clip_id: ref for split in found.splits() for ref in found.clips(split)}
    assert set(refs) == {spec.clip_id for spec in PLAN.clips}
    for spec in PLAN.clips:
        clip = found.load(refs[spec.clip_id], 224)
        truth = json.loads((built / f"instances/{spec.setting}/{spec.split}/{spec.clip_id}.json").read_text())
        assert len(clip.instances) == len(truth["objects"])
        first_only = (spec.setting, spec.split) == ("s4", "train")
        assert clip.labelled.tolist() == [True] + [not first_only] * 4
        heard = [one.visible & one.sounding[:, None, None] for one in clip.instances]
        assert np.array_equal(clip.masks[clip.labelled], np.any(heard, axis=0)[clip.labelled])


def test_the_card_counts_and_names_licences(built: Path) -> None:
    card = (built / "card.md").read_text()
    assert "| all | 3 | 1 |" in card
    assert "| tiny | " in card
    sheet = Image.open(io.BytesIO((built / "contact_sheet.jpg").read_bytes()))
    assert sheet.width > 1000


@contextmanager
def _disk_that_is_full_after(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Writes fail from the count-th on; gives the list of those that were tried."""
    tried: list[str] = []
    write = storage.write_bytes

    def failing(uri: str, data: bytes) -> None:
        tried.append(uri)
        if len(tried) > count:
            raise NotApplied("no space left on device")
        write(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", failing)
        yield tried


@pytest.mark.slow
def test_an_interrupted_build_goes_on_and_ends_the_same(
    built: Path, source_set: SourceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "bench"
    with _disk_that_is_full_after(20, monkeypatch), pytest.raises(StorageError):
        build_benchmark(PLAN, str(root), source_set, workers=1)
    assert not (root / "manifest.parquet").exists()
    finished = list((root / "instances").rglob("*.json"))
    assert 1 <= len(finished) < len(PLAN.clips)
    with _disk_that_is_full_after(10**6, monkeypatch) as tried:
        build_benchmark(PLAN, str(root), source_set, workers=1)
    assert not {str(path) for path in finished} & set(tried), "what was finished is not written again"
    assert _tree(root) == _tree(built)


def test_a_finished_benchmark_is_left_alone(
    built: Path, source_set: SourceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _disk_that_is_full_after(1, monkeypatch) as tried:
        build_benchmark(PLAN, str(built), source_set, workers=1)
    assert [Path(uri).name for uri in tried] == ["plan.json"]


def test_another_benchmark_at_the_same_place_is_refused(built: Path, source_set: SourceSet) -> None:
    other = plan_clips("tiny", {"train": 3, "test": 1}, 1)
    with pytest.raises(ConfigError, match="one benchmark"):
        build_benchmark(other, str(built), source_set, workers=1)


def test_a_place_that_cannot_be_written_is_a_storage_error(source_set: SourceSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="file"):
        build_benchmark(PLAN, str(tmp_path / "file" / "bench"), source_set, workers=1)


def test_a_disk_that_refuses_more_is_a_storage_error(source_set: SourceSet, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(NotApplied, match="could not write"):
            build_benchmark(PLAN, str(tmp_path / "bench"), source_set, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "bench/manifest.parquet").exists()


def test_workers_must_be_some(source_set: SourceSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workers"):
        build_benchmark(PLAN, str(tmp_path), source_set, workers=0)


@pytest.mark.integration
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("default")  # Ray's own, which differ between its versions
@pytest.mark.parametrize("where", [{"workers": 2}, {"address": "local"}])
def test_processes_and_ray_give_the_same_bytes(
    built: Path, source_set: SourceSet, tmp_path: Path, where: dict[str, object]
) -> None:
    build_benchmark(PLAN, str(tmp_path / "bench"), source_set, **where)
    assert _tree(tmp_path / "bench") == _tree(built)


@pytest.mark.integration
@pytest.mark.filterwarnings("default")  # Ray's own, which differ between its versions
@pytest.mark.parametrize("where", [{"workers": 1}, {"workers": 2}, {"address": "local"}])
def test_an_error_of_a_worker_keeps_its_class(source_set: SourceSet, tmp_path: Path, where: dict[str, object]) -> None:
    elsewhere = SourceSet(tmp_path / "no-sources", source_set.catalogue)
    with pytest.raises(InputError, match="names no file"):
        build_benchmark(PLAN, str(tmp_path / "bench"), elsewhere, **where)


@pytest.mark.integration
def test_s3_holds_the_same_bytes(built: Path, source_set: SourceSet, s3_bucket: str) -> None:
    root = f"{s3_bucket}/bench"
    build_benchmark(PLAN, root, source_set, workers=1)
    found = {storage.relative(one.uri, root): storage.read_bytes(one.uri) for one in storage.list_files(root)}
    assert found == _tree(built)
