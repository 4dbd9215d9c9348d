import os
import shutil
import time
from pathlib import Path

import pytest

from avs_core import storage
from avs_core.archive.compact import compact
from avs_core.archive.gc import gc
from avs_core.archive.ledger import load_ledger
from avs_core.archive.read import committed_files, open_archive, open_frames
from avs_core.archive.verify import archive_digest, verify
from avs_core.errors import ConfigError, InputError
from tests.archive import sample
from tests.archive.crasher import crashing
from tests.archive.test_compact import fill, seen

WEEK_S = 7 * 86_400.0


def tables(uri: str) -> list[str]:
    return [
        storage.relative(found.uri, uri)
        for kind in ("data", "frames", "tracks")
        for found in storage.list_files(f"{uri}/{kind}")
    ]


def age(uri: str, days: float) -> None:
    """Make every file of an archive on disk older by so many days."""
    for path in Path(uri).rglob("*"):
        if path.is_file():
            status = path.stat()
            os.utime(path, (status.st_atime, status.st_mtime - days * 86_400))


def test_merged_unit_files_go_and_their_units_stay_done(archive: str) -> None:
    writer = fill(archive)
    before, done = seen(archive), load_ledger(archive, writer.run_key)
    compact(archive)
    report = gc(archive, older_than_s=0.0)
    assert len(report.removed) == 14
    assert (report.kept_files, report.kept_snapshots) == (3, 1)
    assert len(tables(archive)) == 3
    assert seen(archive) == before
    assert (verify(archive).problems, verify(archive).notes) == ((), ())
    assert load_ledger(archive, writer.run_key) == done
    digest = archive_digest(archive)
    fill(archive)  # a writer that does it all again finds the commits
    assert archive_digest(archive) == digest
    assert gc(archive, older_than_s=0.0).removed == ()


def test_without_a_snapshot_only_leftovers_go(archive: str) -> None:
    fill(archive)
    before = seen(archive)
    stray = f"data/run={load_run(archive)}/shard=00/0000-00000of00001.parquet"
    storage.write_bytes(storage.join(archive, stray), b"of a writer that died")
    assert gc(archive, older_than_s=WEEK_S).removed == ()
    assert gc(archive, older_than_s=0.0, dry_run=True).removed == (stray,)
    assert storage.is_file(storage.join(archive, stray))
    assert gc(archive, older_than_s=0.0).removed == (stray,)
    assert seen(archive) == before


def load_run(uri: str) -> str:
    return sample.opened(uri).run_key


def test_a_kept_snapshot_keeps_its_files(archive: str) -> None:
    fill(archive)
    compact(archive)
    first = seen(archive)
    fill(archive, "ab", version=2)
    compact(archive)
    second = seen(archive)
    gc(archive, keep_snapshots=2, older_than_s=0.0)
    assert seen(archive, 1) == first
    assert seen(archive, 2) == second
    assert gc(archive, keep_snapshots=1, older_than_s=0.0).kept_snapshots == 1
    assert seen(archive) == second
    assert verify(archive).problems == ()
    with pytest.raises(InputError, match=r"has 2, not 1"):
        open_archive(archive, snapshot=1)


def test_commits_that_no_kept_snapshot_covers_keep_their_files(archive: str) -> None:
    fill(archive)
    compact(archive)
    fill(archive, "xyz")
    half = sample.units(sample.video("half"), 2)[0]
    sample.commit(sample.opened(archive), half)
    before = seen(archive)
    gc(archive, older_than_s=0.0)
    assert seen(archive) == before
    assert verify(archive).problems == ()


def test_what_a_reader_of_this_week_opened_stays(tmp_path: Path) -> None:
    fill(uri := str(tmp_path / "archive"))
    age(uri, 30)
    frames, rows, before = open_frames(uri), open_archive(uri), seen(uri)
    compact(uri)
    assert gc(uri, older_than_s=WEEK_S).removed == ()
    assert rows.to_table().num_rows == before.rows.num_rows
    assert frames.to_table().num_rows == before.frames.num_rows
    later = time.time() + 8 * 86_400
    assert len(gc(uri, older_than_s=WEEK_S, now_s=later).removed) == 14
    assert seen(uri) == before


def test_a_snapshot_of_this_week_stays_though_others_are_newer(tmp_path: Path) -> None:
    fill(uri := str(tmp_path / "archive"))
    compact(uri)
    fill(uri, "w")
    compact(uri)
    age(uri, 30)
    fill(uri, "x")
    compact(uri)
    removed = gc(uri, older_than_s=WEEK_S).removed
    assert any("00000001" in path for path in removed)
    assert not any("00000002" in path for path in removed)
    assert seen(uri, 2).videos.num_rows == 5


def test_a_leftover_that_a_writer_takes_up_again_is_new(tmp_path: Path) -> None:
    uri = str(tmp_path / "archive")
    writer = sample.opened(uri)
    unit = sample.units(sample.video())[0]
    commit = sample.commit(writer, unit)
    (commit_path,) = (tmp_path / "archive/_commits").rglob("*.json")
    commit_path.unlink()  # the writer died before its commit
    age(uri, 30)
    assert len(gc(uri, older_than_s=WEEK_S, dry_run=True).removed) == 2
    sample.commit(writer, unit)
    commit_path.unlink()
    assert gc(uri, older_than_s=WEEK_S).removed == ()
    assert (tmp_path / "archive" / commit.data.path).exists()


def test_the_leftovers_of_a_compactor_that_died_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(uri := str(tmp_path / "archive"))

    def die(path: str, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put_if_absent", die)
        with pytest.raises(KeyboardInterrupt):
            compact(uri)
    assert len([note for note in verify(uri).notes if "no snapshot" in note]) == 4
    assert len(gc(uri, older_than_s=0.0).removed) == 4
    assert (verify(uri).problems, verify(uri).notes) == ((), ())


def test_values_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 snapshot or more"):
        gc(str(tmp_path), keep_snapshots=0)
    for age in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="younger than 0 days or more"):
            gc(str(tmp_path), older_than_s=age)
    with pytest.raises(InputError, match="must have a run"):
        gc(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_leaves_no_trace(tmp_path: Path, after: bool) -> None:
    def prepare(uri: str) -> None:
        fill(uri, "ab")
        compact(uri)
        fill(uri, "a", version=2)
        compact(uri)

    def collect(uri: str) -> None:
        gc(uri, older_than_s=0.0)

    def place(number: int) -> str:
        return str(shutil.copytree(tmp_path / "archive", tmp_path / f"archive-{number}"))

    prepare(str(tmp_path / "archive"))
    before = seen(str(tmp_path / "archive"))
    collect(clean := place(0))
    undisturbed = archive_digest(clean)
    for died in crashing(collect, place, after):
        assert seen(died) == before
        assert verify(died).problems == ()
        collect(died)
        assert archive_digest(died) == undisturbed
        assert len(committed_files(died)) == 1
