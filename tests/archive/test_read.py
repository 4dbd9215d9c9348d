from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from avs_core import masks, storage
from avs_core.archive.read import (
    committed_files,
    dead_letters,
    open_archive,
    open_frames,
    read_commits,
    resolve_run,
    runs,
)
from avs_core.archive.schema import FRAME_SCHEMA, ROW_SCHEMA
from avs_core.errors import CorruptArchive, InputError
from tests.archive import sample


def test_a_path_that_is_no_archive_is_refused(archive: str) -> None:
    storage.write_bytes(storage.join(archive, "some/file.txt"), b"")
    for read in (open_archive, open_frames, dead_letters, read_commits, runs):
        with pytest.raises(InputError, match="must have a run"):
            read(archive)


def test_an_empty_archive_is_an_empty_table(archive: str) -> None:
    sample.opened(archive)
    assert open_archive(archive).schema == ROW_SCHEMA
    assert open_archive(archive).to_table().equals(ROW_SCHEMA.empty_table())
    assert open_frames(archive).to_table().equals(FRAME_SCHEMA.empty_table())
    assert open_archive(archive).count_rows() == 0
    assert dead_letters(archive).num_rows == 0
    assert committed_files(archive) == []


def test_what_was_committed_is_read(archive: str) -> None:
    writer = sample.opened(archive)
    units = [*sample.units(sample.video("b"), 2), *sample.units(sample.video("a"), 1)]
    for number, unit in enumerate(units):
        sample.commit(writer, unit, seed=10 * number)
    expected = pa.concat_tables(sample.tables(units[number], 10 * number)[0] for number in (2, 0, 1))
    dataset = open_archive(archive)
    assert dataset.schema == ROW_SCHEMA
    assert dataset.to_table().to_pylist() == expected.to_pylist()
    assert dataset.count_rows() == expected.num_rows
    row = dataset.to_table().slice(0, 1).to_pylist()[0]
    assert row["video_uri"] == "s3://videos/a.mp4"
    np.testing.assert_array_equal(
        masks.decode(masks.from_row(row["counts"], row["height"], row["width"])), sample.picture(21)
    )


def test_names_can_be_grouped_over_files(archive: str) -> None:
    writer = sample.opened(archive)
    for name in "abc":
        sample.commit(writer, sample.units(sample.video(name))[0])
    table = open_archive(archive).to_table().unify_dictionaries()
    counted = table.group_by("video_uri").aggregate([([], "count_all")])
    assert {row["video_uri"][-5]: row["count_all"] for row in counted.to_pylist()} == {"a": 6, "b": 6, "c": 6}


def test_a_file_without_a_commit_is_not_seen(archive: str) -> None:
    writer = sample.opened(archive)
    one, two = sample.units(sample.video(), 2)
    sample.commit(writer, one)
    sample.commit(writer, two)
    storage.delete(storage.join(archive, f"_commits/run={writer.run_key}/{two.unit_id}.json"))
    assert open_archive(archive).to_table().equals(sample.tables(one)[0])
    assert len(committed_files(archive)) == 1


def test_one_run_is_read_at_a_time(archive: str) -> None:
    first = sample.opened(archive)
    second = sample.opened(archive, sample.RECORD.model_copy(update={"model": "better"}))
    unit = sample.units(sample.video())[0]
    sample.commit(first, unit)
    sample.commit(second, unit, seed=3)
    assert set(runs(archive)) == {first.run_key, second.run_key}
    with pytest.raises(InputError, match="better"):
        open_archive(archive)
    with pytest.raises(InputError, match="r0 is none of them"):
        open_archive(archive, "r0")
    assert open_archive(archive, second.run_key).to_table().equals(sample.tables(unit, 3)[0])
    assert resolve_run(archive, first.run_key) == first.run_key


def test_the_newest_complete_version_of_a_video_is_shown(archive: str) -> None:
    writer = sample.opened(archive)
    old, new = sample.units(sample.video(version=1), 1, 3), sample.units(sample.video(version=2), 2, 4)
    other = sample.units(sample.video("other"), 1, 2)
    sample.commit(writer, other[0])
    sample.commit(writer, old[0])

    def seconds() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row in open_frames(archive).to_table().to_pylist():
            found.setdefault(row["video_uri"], []).append(row["second"])
        return found

    before = {other[0].video.uri: [0, 1], old[0].video.uri: [0, 1, 2]}
    assert seconds() == before
    sample.commit(writer, new[0])
    assert seconds() == before, "the new version is not complete yet"
    sample.commit(writer, new[1])
    assert seconds() == before | {new[0].video.uri: list(range(8))}
    assert len(read_commits(archive)) == 4


def test_a_dead_unit_completes_a_version_too(archive: str) -> None:
    writer = sample.opened(archive)
    (old,) = sample.units(sample.video(version=1), 1, 3)
    new = sample.units(sample.video(version=2), 2, 4)
    sample.commit(writer, old)
    writer.dead_letter(new[0], "timeout", "", "decode")
    assert open_frames(archive).count_rows() == 3, "a version of which nothing is committed is not shown"
    sample.commit(writer, new[1])
    assert open_frames(archive).to_table()["second"].to_pylist() == [4, 5, 6, 7]


def test_while_no_version_is_complete_the_newest_shows_what_there_is(archive: str) -> None:
    writer = sample.opened(archive)
    for version in (1, 2):
        sample.commit(writer, sample.units(sample.video(version=version), 2, version)[1])
    assert open_frames(archive).to_table()["second"].to_pylist() == [2, 3]


def test_of_two_cuts_of_one_version_one_is_shown(archive: str) -> None:
    writer = sample.opened(archive)
    half = sample.units(sample.video(), 2, 3)
    whole = sample.units(sample.video(), 1, 6)
    sample.commit(writer, half[0])
    assert open_frames(archive).count_rows() == 3
    sample.commit(writer, whole[0])
    assert open_frames(archive).count_rows() == 6
    sample.commit(writer, half[1])
    assert open_frames(archive).to_table()["second"].to_pylist() == [0, 1, 2, 3, 4, 5]


def test_dead_letters_are_sorted_by_video(archive: str) -> None:
    writer = sample.opened(archive)
    for name in "cab":
        writer.dead_letter(sample.units(sample.video(name))[0], "unreadable", "no header", "probe")
    assert [uri[-5] for uri in dead_letters(archive)["video_uri"].to_pylist()] == ["a", "b", "c"]


def test_a_damaged_commit_is_named(tmp_path: Path) -> None:
    writer = sample.opened(str(tmp_path))
    sample.commit(writer, sample.units(sample.video())[0])
    (path,) = tmp_path.glob("_commits/*/*.json")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptArchive, match=path.name):
        open_archive(str(tmp_path))


def test_opening_asks_the_store_for_no_data_file(tmp_path: Path) -> None:
    writer = sample.opened(str(tmp_path))
    sample.commit(writer, sample.units(sample.video())[0])
    for path in tmp_path.glob("data/**/*.parquet"):
        path.unlink()
    dataset = open_archive(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        dataset.to_table()
