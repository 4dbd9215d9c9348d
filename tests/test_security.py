"""Input is untrusted: paths stay in their folder, pickles are not run, pages hold no foreign markup, secrets stay in.

What other tests hold already: URIs and names (test_storage), the page's escaping (report/test_page), pickled log-mels
(datasets/avsbench/test_log_mels), decompression bombs (media/test_corpus), secrets in a whole job (jobs, tracking).
"""

import ast
import gzip
import io
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from avs_core import storage
from avs_core.archive.layout import commits_folder, unit_path
from avs_core.archive.read import committed_files, open_archive, runs
from avs_core.archive.verify import verify
from avs_core.datasets import opening
from avs_core.datasets.avsbench.metadata import parse_labels
from avs_core.datasets.benchmark.layout import CATEGORIES
from avs_core.errors import CheckpointMismatch, CorruptArchive, DataError, InputError
from avs_core.models.published import import_bundle
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.manifest import short_lines
from avs_core.pipelines.wire import clip_from_bytes
from tests import bombs
from tests.archive import sample

ROOT = Path(__file__).parents[1]
OUTSIDE = ("../../outside.parquet", "/etc/passwd", "data/../../outside.parquet", "", "s3://other/file.parquet", "a\0b")


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Calls of these dotted names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            yield node


def sources() -> Iterator[tuple[Path, ast.AST]]:
    """Every module that ships."""
    for folder in ("avs_core", "jobs", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_no_code_of_ours_runs_a_pickle() -> None:
    seen = 0
    for path, tree in sources():
        for call in calls(tree, "torch.load"):
            seen += 1
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert options.get("weights_only") == "True", f"{path}:{call.lineno}"
        for call in calls(tree, "np.load", "numpy.load"):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert options.get("allow_pickle", "False") == "False", f"{path}:{call.lineno}"
        banned = ("pickle.load", "pickle.loads", "pickle.Unpickler", "yaml.load", "eval", "exec", "joblib.load")
        assert not [call.lineno for call in calls(tree, *banned)], path
    assert seen >= 4


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def saved(bomb: object, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": bomb}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["plain", "zip", "old"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_a_checkpoint_can_not_run_anything(tmp_path: Path, form: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / "weights.pth"
    bomb = Bomb(mark)
    path.write_bytes(pickle.dumps(bomb, 2) if form == "plain" else saved(bomb, form == "zip"))
    with pytest.raises(CheckpointMismatch, match="not a readable PyTorch checkpoint"):
        import_bundle(tmp_path / "out", path, path)
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def tampered(archive: str, change: dict[str, object]) -> None:
    """One unit, committed; then its record is changed by hand."""
    writer = sample.opened(archive)
    commit = sample.commit(writer, sample.units(sample.video())[0])
    uri = storage.join(archive, unit_path(commits_folder(writer.run_key), commit.unit_id))
    record = json.loads(storage.read_bytes(uri))
    record["data"] |= change
    storage.write_bytes(uri, json.dumps(record).encode())


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_commit_can_not_name_a_file_outside_its_archive(tmp_path: Path, path: str) -> None:
    archive = str(tmp_path / "archive")
    tampered(archive, {"path": path})
    for read in (open_archive, committed_files, verify):
        with pytest.raises(CorruptArchive):
            read(archive)


@pytest.mark.parametrize("run", ["../../outside", "/etc/passwd", "a/b", ""])
def test_a_run_is_one_that_the_archive_lists(tmp_path: Path, run: str) -> None:
    archive = str(tmp_path / "archive")
    sample.opened(archive)
    with pytest.raises(InputError, match="one run"):
        open_archive(archive, run)
    assert len(runs(archive)) == 1


@pytest.mark.parametrize(
    "entry", ["http://host/a.mp4", "ftp://host/a.mp4", "gs://b/a.mp4", "concat:a|b://c", "s3://b/../a"]
)
def test_a_manifest_can_not_name_other_places(tmp_path: Path, entry: str) -> None:
    manifest = tmp_path / "videos.txt"
    manifest.write_text(entry + "\n")
    with pytest.raises(InputError):
        find_videos([str(manifest)])


def test_a_secret_in_a_manifest_is_not_repeated(tmp_path: Path) -> None:
    manifest = tmp_path / "videos.txt"
    for entry in (
        "https://user:hunter2@host/a.mp4",
        "s3://AKIA:hunter2@bucket/a.mp4",
        "s3://b/a?X-Amz-Signature=hunter2",
    ):
        manifest.write_text(entry + "\n")
        with pytest.raises(InputError) as refused:
            find_videos([str(manifest)])
        assert "hunter2" not in str(refused.value)


def test_names_of_videos_name_no_file_of_an_archive(tmp_path: Path) -> None:
    """Only hashes do: what is written stays below the archive whatever a video is called."""
    archive = tmp_path / "deep" / "archive"
    writer = sample.opened(str(archive))
    for name in ("../../../up", "a\nb", "<script>", "x" * 500):
        sample.commit(writer, sample.units(sample.video(name))[0])
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert all(path.is_relative_to(archive) for path in written)
    assert not verify(str(archive)).problems


def test_clips_between_processes_hold_numbers_only(tmp_path: Path) -> None:
    mark, buffer = tmp_path / "ran", io.BytesIO()
    np.savez(buffer, facts=np.array([Bomb(mark)], dtype=object))

    with pytest.raises(ValueError, match="allow_pickle"):
        clip_from_bytes(buffer.getvalue())
    assert not mark.exists()


BOMBS = {
    "size.txt": (lambda path: bombs.sparse(path, 1 << 40), "at most 268435456 bytes"),
    "line.txt": (lambda path: path.write_bytes(b"a" * (64 << 20)), "65536 characters"),
    "entries.txt": (lambda path: path.write_bytes(b"a\n" * 5_000_001), "5000000 entries"),
    "columns.csv": (lambda path: path.write_bytes(b"uri\n" + b"," * (64 << 20)), "65536 characters"),
    "record.csv": (lambda path: path.write_bytes(b"uri\n" + b'"\n",' * (16 << 20)), "1000 lines"),
    "field.csv": (lambda path: path.write_bytes(b'uri\n"' + (b"a" * 60_000 + b"\n") * 9), "field larger"),
    "repeated.parquet": (lambda path: bombs.repeated(path, "a" * (1 << 20), 1 << 20), "4096 bytes"),
    "zeros.parquet": (lambda path: bombs.zeros(path, "uri", 1 << 10), "bytes unpacked"),
    "rows.parquet": (lambda path: bombs.repeated(path, "a", 6 << 20), "5000000 entries"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_manifest_that_unpacks_to_more_is_refused(tmp_path: Path, name: str) -> None:
    make, rule = BOMBS[name]
    make(path := tmp_path / name)
    said = bombs.opened("manifest", path)
    assert said.startswith("InputError")
    assert rule in said
    assert str(path) in said


def test_a_manifest_whose_values_repeat_the_start_of_others_is_refused(tmp_path: Path) -> None:
    values = pa.table({"uri": [("a" * 4000) + str(number) for number in range(100)]})
    pq.write_table(values, tmp_path / "m.parquet", use_dictionary=False, column_encoding={"uri": "DELTA_BYTE_ARRAY"})
    with pytest.raises(InputError, match="encoded plainly"):
        find_videos([str(tmp_path / "m.parquet")])


INVENTORIES = {
    "Parquet": lambda path: bombs.repeated(path, "a" * (1 << 20), 1 << 20, "key"),
    "ORC": lambda path: bombs.stripe(path, 2 << 10),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", INVENTORIES)
def test_a_file_of_an_inventory_that_unpacks_to_more_is_refused(tmp_path: Path, form: str) -> None:
    INVENTORIES[form](path := tmp_path / form)
    assert path.stat().st_size < 16 << 20
    said = bombs.opened("inventory", path)
    assert said.startswith("InputError a file of an inventory must be whole and unpack to at most 1024 MB")
    assert str(path) in said


@pytest.mark.slow
def test_other_columns_of_a_manifest_are_not_read(tmp_path: Path) -> None:
    """A gigabyte beside the names: the process has half of that."""
    part = pa.table({"uri": ["/gone.mp4"] * 16, "note": ["0" * (1 << 20)] * 16})
    with pq.ParquetWriter(tmp_path / "m.parquet", part.schema, compression="zstd", use_dictionary=["uri"]) as writer:
        for _ in range(64):
            writer.write_table(part)
    assert bombs.opened("manifest", tmp_path / "m.parquet", 512 << 20) == ""


@pytest.mark.slow
def test_a_parquet_file_of_an_archive_that_unpacks_to_more_is_refused(tmp_path: Path) -> None:
    bombs.zeros(path := tmp_path / "unit.parquet", "counts", 5 << 10)
    assert path.stat().st_size < 4 << 20
    assert bombs.opened("archive", path).startswith("CorruptArchive")


@pytest.mark.slow
def test_pictures_are_measured_before_they_are_decoded(tmp_path: Path) -> None:
    (path := tmp_path / "a.png").write_bytes(bombs.png(7000, 6000))  # Pillow itself lets 179 million pixels pass
    assert path.stat().st_size < 1 << 20
    assert bombs.opened("picture", path).startswith("DataError a picture may have at most")


@pytest.mark.slow
def test_a_packed_file_of_a_source_package_has_a_limit(tmp_path: Path) -> None:
    (path := tmp_path / "a.rcc").write_bytes(bombs.qt_resource(768))
    assert path.stat().st_size < 4 << 20
    assert bombs.opened("container", path).startswith("UnreadableMedia")


@pytest.mark.slow
def test_the_manifest_of_a_benchmark_has_a_limit(tmp_path: Path) -> None:
    bombs.repeated(path := tmp_path / "manifest.parquet", "a", 2 << 20, "clip_id")
    assert bombs.opened("benchmark", path).startswith("DataError a manifest may list at most")


def test_json_as_deep_as_it_is_long_is_refused() -> None:
    with pytest.raises(DataError, match="must be JSON"):
        parse_labels(bombs.nested(100_000))


def test_a_list_of_objects_as_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / CATEGORIES).write_bytes(bombs.nested(100_000))
    with pytest.raises(DataError, match="must be JSON"):
        opening._categories(str(tmp_path))


def test_a_line_of_an_inventory_has_a_limit() -> None:
    opened = gzip.GzipFile(fileobj=io.BytesIO(bombs.inventory_line(1024)))
    with io.TextIOWrapper(opened) as endless, pytest.raises(InputError, match="65536 characters"):
        list(short_lines(endless, "an inventory"))
