import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avs_core import storage
from avs_core.archive.schema import to_parquet
from avs_core.archive.verify import archive_digest, verify
from avs_core.errors import CorruptArchive, InputError
from tests.archive import sample


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """An archive of two committed units and a dead letter."""
    place = tmp_path / "archive"
    writer = sample.opened(str(place))
    for unit in sample.units(sample.video(), 2):
        sample.commit(writer, unit)
    writer.dead_letter(sample.units(sample.video("broken"))[0], "unreadable", "no header", "probe")
    return place


def only(place: Path, pattern: str) -> Path:
    return sorted(place.glob(pattern))[0]


def replace_table(place: Path, change: Callable[[pa.Table], pa.Table], kind: str = "data") -> None:
    """Change a committed table and let the commit agree with its bytes, as a faulty writer would."""
    path = only(place, f"{kind}/**/*.parquet")
    table = change(pq.read_table(pa.BufferReader(path.read_bytes())))
    path.write_bytes(content := to_parquet(table, {}))
    commit = place / "_commits" / path.parent.parent.name / f"{path.stem}.json"
    record = json.loads(commit.read_bytes())
    record[kind] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    commit.write_text(json.dumps(record))


def set_column(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    """Replace the first value of a column."""

    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        values = [value, *table[name].to_pylist()[1:]]
        return table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))

    return change


def test_a_good_archive_holds(archive: str) -> None:
    writer = sample.opened(archive)
    for unit in sample.units(sample.video(), 2):
        sample.commit(writer, unit)
    report = verify(archive)
    assert (report.problems, report.notes) == ((), ())
    assert (report.runs, report.commits, report.dead, report.frames, report.instances) == (1, 2, 0, 10, 12)
    assert list(report.lines())[-1] == "everything holds"


def test_no_archive_is_no_good_archive(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        verify(str(tmp_path))


def flip_a_byte(place: Path) -> None:
    path = only(place, "data/**/*.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def die_too(place: Path) -> None:
    writer = sample.opened(str(place))
    commit = only(place, "_commits/**/*.json")
    shutil.copy(only(place, "_dead/**/*.json"), place / f"_dead/run={writer.run_key}" / commit.name)


def change_run(place: Path) -> None:
    path = only(place, "_runs/*")
    path.write_text(path.read_text().replace('"sample"', '"changed"'))


def forget_run(place: Path) -> None:
    only(place, "_runs/*").unlink()
    sample.opened(str(place), sample.RECORD.model_copy(update={"model": "another"}))


FAULTS = [
    (lambda place: only(place, "data/**/*.parquet").unlink(), "missing"),
    (lambda place: only(place, "frames/**/*.parquet").unlink(), "missing"),
    (flip_a_byte, "SHA-256"),
    (lambda place: only(place, "data/**/*.parquet").write_bytes(b"short"), "5 bytes"),
    (change_run, "its record has the key"),
    (forget_run, "it has commits and no record"),
    (lambda place: replace_table(place, lambda table: table.drop_columns("score")), "schema"),
    (lambda place: replace_table(place, lambda table: table.slice(1)), "the commit says 6"),
    (lambda place: replace_table(place, set_column("area", 1)), "row 0: its area or box"),
    (lambda place: replace_table(place, set_column("x0", 63)), "row 0: its area or box"),
    (lambda place: replace_table(place, set_column("counts", b"99")), "do not fill 36×64"),
    (lambda place: replace_table(place, set_column("height", 35)), "do not fill 35×64"),
    (lambda place: replace_table(place, set_column("video_id", "f" * 16)), "rows of other videos"),
    (lambda place: replace_table(place, set_column("n_instances", 1), "frames"), "its frames count 7"),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_each_fault_is_found(good: Path, damage: Callable[[Path], None], message: str) -> None:
    assert verify(str(good)).problems == ()
    damage(good)
    problems = verify(str(good)).problems
    assert len(problems) == 1
    assert message in problems[0]
    lines = list(verify(str(good)).lines())
    assert lines[1] == f"problem: {problems[0]}"
    assert lines[-1] == "1 problems"


def test_a_unit_that_one_driver_gave_up_and_another_finished_is_no_problem(good: Path) -> None:
    die_too(good)
    report = verify(str(good))
    assert report.problems == ()
    assert "the commit counts" in report.notes[0]


def test_what_is_no_parquet_is_found(good: Path) -> None:
    path = only(good, "data/**/*.parquet")
    path.write_bytes(b"x" * path.stat().st_size)
    commit = only(good, f"_commits/**/{path.stem}.json")
    commit.write_text(
        commit.read_text().replace(
            json.loads(commit.read_bytes())["data"]["sha256"], hashlib.sha256(path.read_bytes()).hexdigest()
        )
    )
    assert "no readable Parquet" in verify(str(good)).problems[0]


def test_a_damaged_record_is_named(good: Path) -> None:
    only(good, "_runs/*").write_bytes(b"{")
    with pytest.raises(CorruptArchive, match="_runs/"):
        verify(str(good))


def test_a_file_without_a_commit_is_a_note(good: Path) -> None:
    stray = good / "data/run=r1/shard=00/stray.parquet"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"")
    report = verify(str(good))
    assert report.problems == ()
    assert report.notes == ("data/run=r1/shard=00/stray.parquet: no commit and no snapshot lists it",)


def test_a_digest_is_of_names_and_content(good: Path, tmp_path: Path) -> None:
    before = archive_digest(str(good))
    copy = tmp_path / "copy"
    shutil.copytree(good, copy)
    assert archive_digest(str(copy)) == before
    (copy / "more").write_bytes(b"")
    assert archive_digest(str(copy)) != before
    (copy / "more").unlink()
    flip_a_byte(copy)
    assert archive_digest(str(copy)) != before


@pytest.mark.integration
def test_a_digest_is_the_same_on_disk_and_on_s3(good: Path, s3_bucket: str) -> None:
    for found in storage.list_files(str(good)):
        name = storage.relative(found.uri, str(good))
        storage.write_bytes(storage.join(s3_bucket, "copy", name), storage.read_bytes(found.uri))
    assert archive_digest(storage.join(s3_bucket, "copy")) == archive_digest(str(good))
