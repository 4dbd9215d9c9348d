"""The main job as a user runs it: real Ray, real files, real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from avs_core import masks, storage
from avs_core.archive.read import committed_files, dead_letters, open_archive, open_frames
from avs_core.archive.stats import read_stats
from avs_core.archive.verify import archive_digest, verify
from tests.s3_server import S3Server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def avs(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "jobs.main", *arguments],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def last_line(done: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rows_of(archive: str) -> list[dict[str, object]]:
    """All of it, in an order that no cut changes."""
    rows = open_archive(archive).to_table().to_pylist()
    return sorted(rows, key=lambda row: (row["video_uri"], row["object_id"], row["frame_index"]))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, demo_clips: list[Path]) -> Path:
    """Two good clips and three bad files."""
    folder = tmp_path_factory.mktemp("videos")
    for index, clip in enumerate(demo_clips[:2]):
        (folder / f"good{index}.mp4").write_bytes(clip.read_bytes())
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "page.mp4").write_text("<html>not found</html>")
    (folder / "cut.mp4").write_bytes(demo_clips[0].read_bytes()[:20_000])
    return folder


@pytest.mark.ci_slice
def test_good_videos_are_segmented_and_bad_ones_are_dead_letters(videos: Path, tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    done = avs("segment", str(videos), "--archive", archive, "--json", "--no-report", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    line = last_line(done)
    assert (line["videos"], line["segmented"], line["dead"], line["failed"]) == (5, 2, 3, 0)
    assert line["archive"] == archive

    frames = open_frames(archive).to_table()
    rows = open_archive(archive).to_table().to_pylist()
    assert line["frames"] == frames.num_rows
    assert line["instances"] == len(rows) > 0
    assert {Path(row["video_uri"]).name for row in rows} <= {"good0.mp4", "good1.mp4"}
    for row in rows:
        rle = {"size": [row["height"], row["width"]], "counts": row["counts"]}
        assert masks.decode(rle).sum() == row["area"] > 0
    letters = {Path(str(row["video_uri"])).name: row["error_class"] for row in dead_letters(archive).to_pylist()}
    assert letters == {"empty.mp4": "unreadable", "page.mp4": "unreadable", "cut.mp4": "unreadable"}
    assert not verify(archive).problems

    (job,) = read_stats(archive, str(line["run_key"]))  # a Ray of its own has the machine's CPUs, all of them paid for
    assert (job.cluster_cpus, job.cluster_gpus) == (len(os.sched_getaffinity(0)), 0)
    assert job.paid_cpu_s > job.busy_cpu_s > 0

    before = archive_digest(archive)
    again = avs("segment", str(videos), "--archive", archive, "--json", "--no-report", cwd=tmp_path)
    assert again.returncode == 3
    assert (last_line(again)["segmented"], last_line(again)["frames"]) == (0, 0)
    assert archive_digest(archive) == before

    check = avs("verify", archive, cwd=tmp_path)
    assert check.returncode == 0, check.stdout + check.stderr
    Path(committed_files(archive)[0]).write_bytes(b"x")
    assert avs("verify", archive, cwd=tmp_path).returncode == 1


def test_a_job_of_which_too_many_videos_die_has_failed(videos: Path, tmp_path: Path) -> None:
    flags = ("--archive", str(tmp_path / "archive"), "--no-tracking", "--no-report")
    done = avs("segment", str(videos), *flags, "--max-dead-share", "0.5", cwd=tmp_path)
    assert done.returncode == 1
    assert "at most 50% of a job's videos may be dead, 3 of 5 are" in done.stderr
    assert avs("segment", str(videos), *flags, "--max-dead-share", "0.6", cwd=tmp_path).returncode == 3


def test_s3_on_both_ends_and_no_secret_anywhere(
    videos: Path, tmp_path: Path, s3_server: S3Server, s3_bucket: str
) -> None:
    for path in sorted(videos.glob("good*.mp4")):
        storage.write_bytes(f"{s3_bucket}/in/{path.name}", path.read_bytes())
    archive = f"{s3_bucket}/archive"
    done = avs("segment", f"{s3_bucket}/in/", "--archive", archive, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    here = str(tmp_path / "here")
    local = avs("segment", f"{videos}/good*", "--archive", here, "--json", "--no-report", cwd=tmp_path)
    assert local.returncode == 0, local.stderr
    columns = ["frame_time_us", "object_id", "counts"]
    assert open_archive(archive).to_table(columns=columns).equals(open_archive(here).to_table(columns=columns))
    assert avs("verify", archive, cwd=tmp_path).returncode == 0

    secret = s3_server.environment["AWS_SECRET_ACCESS_KEY"]
    assert secret not in done.stdout + done.stderr
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in kept)
    assert any(path.suffix == ".html" for path in kept)
    assert not [path for path in kept if secret.encode() in path.read_bytes()]
    objects = list(storage.list_files(archive))
    assert objects
    assert not [found.uri for found in objects if secret.encode() in storage.read_bytes(found.uri)]


def test_two_frames_a_second_hold_the_frames_of_one(videos: Path, tmp_path: Path) -> None:
    clip = str(videos / "good0.mp4")
    for rate in (1, 2):
        done = avs(
            "segment",
            clip,
            "--archive",
            str(tmp_path / f"r{rate}"),
            "--rate",
            str(rate),
            "--no-tracking",
            "--no-report",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    one, two = (
        duckdb.query(
            f"SELECT frame_time_us, counts FROM read_parquet('{tmp_path}/r{rate}/data/**/*.parquet') ORDER BY 1"
        ).fetchall()
        for rate in (1, 2)
    )
    assert set(one) <= set(two)
    assert open_frames(str(tmp_path / "r2")).count_rows() == 2 * open_frames(str(tmp_path / "r1")).count_rows()


def test_how_videos_are_cut_and_how_many_work_on_them_changes_no_row(videos: Path, tmp_path: Path) -> None:
    cuts = {"fine": ("--unit-s", "5", "--decoders", "2", "--segmenters", "2"), "whole": ("--unit-s", "300")}
    for name, flags in cuts.items():
        where = ("--archive", str(tmp_path / name), "--no-tracking", "--no-report")
        assert avs("segment", f"{videos}/good*", *where, *flags, cwd=tmp_path).returncode == 0
    fine, whole = (rows_of(str(tmp_path / name)) for name in cuts)
    assert fine == whole
    assert len(fine) > 0
    parts = [len(committed_files(str(tmp_path / name))) for name in cuts]
    assert parts[0] > parts[1]  # it was cut


def test_a_store_that_ignores_conditional_writes_is_refused_before_any_work(
    videos: Path, tmp_path: Path, forgetful_bucket: str
) -> None:
    archive = f"{forgetful_bucket}/archive"
    done = avs("segment", str(videos), "--archive", archive, "--no-tracking", "--no-report", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "UnsafeStore" in done.stderr
    assert [storage.relative(found.uri, archive).partition("/")[0] for found in storage.list_files(archive)] == [
        "_runs"
    ]
