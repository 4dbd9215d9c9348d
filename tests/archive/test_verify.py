import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avs_core import storage
from avs_core.archive import verify as verifying
from avs_core.archive.compact import compact
from avs_core.archive.current import make_current
from avs_core.archive.layout import TouchRecord, VideoRecord
from avs_core.archive.ledger import load_ledger
from avs_core.archive.schema import to_parquet
from avs_core.archive.touched import record_touch
from avs_core.archive.verify import archive_digest, verify
from avs_core.clip import Unit, VideoRef
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
    commit, letter = only(place, "_commits/**/*.json"), only(place, "_dead/**/*.json")
    committed = json.loads(commit.read_bytes())
    of_unit = {name: committed[name] for name in ("unit_id", "video", "start_s", "stop_s", "index", "of")}
    (letter.parent / commit.name).write_text(json.dumps(json.loads(letter.read_bytes()) | of_unit))


def change_run(place: Path) -> None:
    path = only(place, "_runs/*")
    path.write_text(path.read_text().replace('"sample"', '"changed"'))


def forget_run(place: Path) -> None:
    only(place, "_runs/*").unlink()
    sample.opened(str(place), sample.RECORD.model_copy(update={"model": "another"}))


def set_fields(pattern: str, **values: object) -> Callable[[Path], None]:
    """Change a record, as flipped bits in a JSON that stays readable do; `video__x` is a field of its video."""

    def change(place: Path) -> None:
        path = only(place, pattern)
        record = json.loads(path.read_bytes())
        for name, value in values.items():
            owner, _, part = name.rpartition("__")
            (record[owner] if owner else record)[part] = value
        path.write_text(json.dumps(record))

    return change


def rename(pattern: str, old: str, new: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        path = only(place, pattern)
        path.rename(path.with_name(path.name.replace(old, new)))

    return change


def spoil(pattern: str) -> Callable[[Path], None]:
    return lambda place: only(place, pattern).write_bytes(b"{")


COMMIT, LETTER, TOUCH, CHOICE = "_commits/**/*.json", "_dead/**/*.json", "_touched/**/*.json", "_current/*.json"

RECORD_FAULTS = [
    (set_fields(COMMIT, unit_id="x"), "its record says x"),
    (set_fields(COMMIT, video__uri="s3://videos/b.mp4"), "its record is of unit"),
    (set_fields(COMMIT, video__fingerprint="etag2-1001"), "its record is of unit"),
    (set_fields(COMMIT, of=3), "its record is of unit"),
    (set_fields(COMMIT, index=1), "its record is of unit"),
    (set_fields(COMMIT, index=2), "index must lie in"),
    (set_fields(COMMIT, video__size=1000), "1000 bytes"),
    (set_fields(COMMIT, start_s=1), "frames outside of its seconds [1, 5): [0]"),
    (set_fields(COMMIT, stop_s=4), "frames outside of its seconds [0, 4): [4]"),
    (set_fields(COMMIT, stop_s=-1), "start_s < stop_s"),
    (spoil(LETTER), "a DeadLetter must be readable"),
    (set_fields(LETTER, unit_id="x"), "its record says x"),
    (set_fields(LETTER, video__uri="s3://videos/b.mp4"), "its record is of unit"),
    (set_fields(LETTER, video__video_id="0" * 16), "its video_id is not that of s3://videos/broken.mp4"),
    (set_fields(LETTER, video__size=1), "1 bytes"),
    (rename(LETTER, "of00001", "of00002"), "its record says"),
    (spoil(TOUCH), "a TouchRecord must be readable"),
    (set_fields(TOUCH, video__fingerprint="etag3-1001"), "its record is of video"),
    (set_fields(TOUCH, as_key="0" * 28), "masks of another video"),
    (spoil(CHOICE), "a Choice must be readable"),
    (set_fields(CHOICE, number=3), "its record has the number 3"),
    (set_fields(CHOICE, run_key="gone"), "readers get run gone"),
]


@pytest.mark.parametrize(("damage", "message"), RECORD_FAULTS, ids=range(len(RECORD_FAULTS)))
def test_flipped_bits_in_a_record_are_found(good: Path, damage: Callable[[Path], None], message: str) -> None:
    run = sample.opened(str(good)).run_key
    touched = replace(sample.video(version=2), size=1001, fingerprint="etag2-1001")
    ledger = load_ledger(str(good), run)
    record_touch(str(good), run, touched, touch_of(touched, ledger.committed))
    make_current(str(good), run)
    assert verify(str(good)).problems == ()
    damage(good)
    (problem,) = verify(str(good)).problems
    assert message in problem


def touch_of(video: VideoRef, committed: frozenset[str]) -> TouchRecord:
    return TouchRecord(video=VideoRecord.of(video), as_key=min(committed).partition("-")[0])


def test_a_size_that_a_file_on_disk_can_not_have_is_found(tmp_path: Path) -> None:
    """Its fingerprint holds the size and the time in ns, that of another store may hold anything."""
    for number, (size, modified_us, problems) in enumerate([(7, 12_345, 0), (8, 12_345, 1), (7, 12_344, 1)]):
        place = str(tmp_path / str(number))
        sample.commit(sample.opened(place), Unit(VideoRef("/v.mp4", size, "7-12345678", modified_us), 0, 5))
        assert len(verify(place).problems) == problems
    place = str(tmp_path / "any")
    sample.commit(sample.opened(place), Unit(VideoRef("/v.mp4", 1, "f"), 0, 5))
    assert verify(place).problems == ()


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


def test_what_is_committed_and_compacted_while_it_looks_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = str(tmp_path / "archive")
    writer = sample.opened(archive)
    sample.commit(writer, sample.units(sample.video("a"))[0])
    worked: list[str] = []

    def check(*args: object, look: Callable[..., object] = verifying.check_letters) -> object:
        if not worked:
            worked.append("once")
            sample.commit(writer, sample.units(sample.video("b"))[0])
            compact(archive)
        return look(*args)

    monkeypatch.setattr(verifying, "check_letters", check)
    assert verify(archive).problems == ()
    assert worked
