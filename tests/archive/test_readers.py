"""One archive, opened with each tool that people have: the same masks come out, with and without the folders' names."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

import avs_core
from avs_core import masks, storage
from avs_core.archive.compact import compact
from avs_core.archive.read import committed_files, open_archive
from tests.archive import sample

VIDEOS = 12
COLUMNS = ["video_uri", "object_id", "frame_time_us", "counts", "height", "width", "category", "score"]
Key = tuple[str, int, int]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An archive over many shards, one of which looks like a number, one like a word."""
    uri = str(tmp_path_factory.mktemp("readers") / "archive")
    writer = sample.opened(uri)
    units = [sample.units(sample.video(f"v{number}"))[0] for number in range(VIDEOS)]
    for number, unit in enumerate(units):
        sample.commit(writer, unit, seed=number)
    shards = {unit.shard for unit in units}
    assert any(shard.isdigit() for shard in shards)
    assert any(shard.isalpha() for shard in shards)
    return uri


def decoded(rows: Iterable[dict[str, Any]]) -> dict[Key, bytes]:
    """The mask of each row, by what names it."""
    found = {}
    for row in rows:
        mask = masks.decode(masks.from_row(bytes(row["counts"]), int(row["height"]), int(row["width"])))
        found[str(row["video_uri"]), int(row["object_id"]), int(row["frame_time_us"])] = mask.tobytes()
        assert row["score"] == 0.75
        assert (row["category"] == "dog") == (row["object_id"] == 1)
    return found


@pytest.fixture(scope="module")
def truth() -> dict[Key, bytes]:
    """The masks that were put in, made again from their seeds."""
    found = {}
    for number in range(VIDEOS):
        unit = sample.units(sample.video(f"v{number}"))[0]
        for second in (1, 2, 4):
            for object_id in (0, 1):
                mask = sample.picture(number + second + 500 * object_id)
                key = (unit.video.uri, object_id, second * 1_000_000 + 920_000)
                found[key] = mask.astype(np.uint8).tobytes()
    return found


def with_pyarrow(uri: str) -> Iterable[dict[str, Any]]:
    return open_archive(uri).to_table(columns=COLUMNS).to_pylist()


def with_pyarrow_over_the_folder(uri: str) -> Iterable[dict[str, Any]]:
    table = pq.read_table(f"{uri}/data")
    assert {"run", "shard"} <= set(table.column_names)
    return table.select(COLUMNS).to_pylist()


def with_duckdb(uri: str) -> Iterable[dict[str, Any]]:
    names = ", ".join(COLUMNS)
    with duckdb.connect() as connection:
        return (
            connection.sql(f"SELECT {names} FROM read_parquet({committed_files(uri)!r})").to_arrow_table().to_pylist()
        )


def with_duckdb_over_the_folder(uri: str) -> Iterable[dict[str, Any]]:
    """As long as nothing was compacted or replaced."""
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT * FROM read_parquet('{uri}/data/**/*.parquet', hive_partitioning = true)")
        return found.to_arrow_table().to_pylist()


def with_pandas(uri: str) -> Iterable[dict[str, Any]]:
    frame = pd.concat([pd.read_parquet(path, partitioning=None) for path in committed_files(uri)])
    return frame.astype({"category": object}).to_dict("records")


def with_pandas_over_the_folder(uri: str) -> Iterable[dict[str, Any]]:
    return pd.read_parquet(f"{uri}/data").astype({"category": object}).to_dict("records")


def with_polars(uri: str) -> Iterable[dict[str, Any]]:
    return pl.read_parquet(committed_files(uri), columns=COLUMNS).to_dicts()


def with_polars_over_the_folder(uri: str) -> Iterable[dict[str, Any]]:
    return pl.scan_parquet(f"{uri}/data/**/*.parquet", hive_partitioning=True).collect().to_dicts()


READERS = [
    with_pyarrow,
    with_pyarrow_over_the_folder,
    with_duckdb,
    with_duckdb_over_the_folder,
    with_pandas,
    with_pandas_over_the_folder,
    with_polars,
    with_polars_over_the_folder,
]


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__.removeprefix("with_"))
def test_each_tool_decodes_the_same_masks(
    whole: str, truth: dict[Key, bytes], read: Callable[[str], Iterable[dict[str, Any]]]
) -> None:
    assert decoded(read(whole)) == truth


def test_the_examples_of_the_readme_count_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where merged files stand beside those that they replace, and a video was replaced since."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        sample.commit(sample.opened("masks"), sample.units(sample.video(name))[0])
    compact("masks")
    sample.commit(sample.opened("masks"), sample.units(sample.video("a", version=2))[0])
    readme = Path(avs_core.__file__).parents[1] / "README.md"
    fenced = re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)
    showing, counting = (text for text in fenced if 'open_archive("masks")' in text)
    scope: dict[str, Any] = {}
    exec(showing, scope)  # noqa: S102  # our own
    assert scope["mask"].shape == (sample.HEIGHT, sample.WIDTH)
    exec(counting, scope)  # noqa: S102  # likewise
    # of six rows a video three are object 0
    assert sorted(scope["counted"].fetchall()) == [("s3://videos/a.mp4", 3), ("s3://videos/b.mp4", 3)]


def test_hugging_face_datasets_decodes_the_same_masks(
    whole: str, truth: dict[Key, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset("parquet", data_files=committed_files(whole), split="train", cache_dir=str(tmp_path))
    assert decoded(loaded) == truth


@pytest.fixture
def ray() -> Iterator[Any]:
    """A Ray of our own."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.mark.integration
@pytest.mark.filterwarnings("default")  # Ray's own, which differ between its versions
def test_ray_data_decodes_the_same_masks(whole: str, truth: dict[Key, bytes], ray: Any) -> None:
    ray.data.DataContext.get_current().enable_progress_bars = False
    listed = ray.data.read_parquet(committed_files(whole), columns=COLUMNS, partitioning=None)
    assert decoded(listed.iter_rows()) == truth
    folder = ray.data.read_parquet(f"{whole}/data")
    assert decoded(folder.iter_rows()) == truth


@pytest.mark.integration
def test_tools_read_from_s3_through_the_same_variables(s3_bucket: str, s3_server: Any, truth: dict[Key, bytes]) -> None:
    writer = sample.opened(uri := storage.join(s3_bucket, "archive"))
    for number in range(VIDEOS):
        sample.commit(writer, sample.units(sample.video(f"v{number}"))[0], seed=number)
    assert decoded(with_pyarrow(uri)) == truth
    assert decoded(with_pandas(uri)) == truth
    environment = s3_server.environment
    options = {
        "aws_endpoint_url": environment["AWS_ENDPOINT_URL"],
        "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
        "aws_region": environment["AWS_DEFAULT_REGION"],
        "aws_allow_http": "true",
    }
    scanned = pl.scan_parquet(committed_files(uri), storage_options=options, hive_partitioning=False)
    assert decoded(scanned.collect().to_dicts()) == truth
