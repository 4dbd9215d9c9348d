"""How videos stand in an archive: from real archives on disk and on a real S3 server."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from avs_core import storage
from avs_core.archive.ledger import load_ledger
from avs_core.archive.schema import run_key
from avs_core.archive.touched import content_hash, earlier_versions, record_touch
from avs_core.archive.versions import as_versions
from avs_core.clip import VideoRef
from avs_core.media.versions import decoder_versions
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.plan import PLAN_SCHEMA, Plan, State, compare_content, make_plan, plan_found, with_deleted
from avs_core.pipelines.provenance import software
from tests.archive import sample

OTHER = sample.RECORD.model_copy(update={"thresholds": {"mask": 0.75}})


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.integration)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder for videos and an archive, on disk and on a real S3 server."""
    return str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("s3_bucket"))


def put(place: str, name: str, content: bytes) -> VideoRef:
    """A file that is no video, but a planner never looks into it."""
    uri = storage.join(place, "videos", name)
    storage.write_bytes(uri, content)
    return find_videos([uri])[0]


def states(plan: Plan) -> dict[str, State]:
    return {video.uri.rpartition("/")[2]: state for video, state in zip(plan.videos, plan.states, strict=True)}


def test_every_state_is_told_from_names(place: str) -> None:
    archive = storage.join(place, "archive")
    names = ("new", "changed", "stale", "lost", "begun", "done", "dead", "half", "misjudged")
    videos = {name: put(place, f"{name}.mp4", name.encode()) for name in names}
    now, before = sample.opened(archive, software=software()), sample.opened(archive, OTHER)
    sample.commit(now, sample.units(replace(videos["changed"], fingerprint="older"))[0])
    sample.commit(before, sample.units(videos["stale"])[0])
    before.dead_letter(sample.units(videos["lost"])[0], "unreadable", "", "probe")
    sample.commit(now, sample.units(videos["begun"], 2)[1])
    for unit in sample.units(videos["done"], 2):
        sample.commit(now, unit)
    now.dead_letter(sample.units(videos["dead"])[0], "unreadable", "", "probe")
    one, two = sample.units(videos["half"], 2)
    sample.commit(now, one)
    now.dead_letter(two, "corrupt", "", "decode")
    by_another_decoder = sample.opened(archive)
    by_another_decoder.dead_letter(sample.units(videos["misjudged"])[0], "unreadable", "", "probe")

    plan = make_plan(find_videos([storage.join(place, "videos")]), archive, now.run_key)
    assert states(plan) == {
        "new.mp4": State.NEW,
        "changed.mp4": State.CHANGED,
        "stale.mp4": State.STALE,
        "lost.mp4": State.STALE,
        "begun.mp4": State.IN_PROGRESS,
        "done.mp4": State.DONE,
        "dead.mp4": State.DEAD,
        "half.mp4": State.DEAD,
        "misjudged.mp4": State.IN_PROGRESS,
    }
    assert sorted(video.uri for video in plan.pending) == sorted(
        videos[name].uri for name in ("new", "changed", "stale", "lost", "begun", "misjudged")
    )
    assert (plan.settled, plan.counts[State.DEAD], plan.counts[State.DELETED]) == (3, 2, 0)


def test_a_plan_sees_what_readers_see_where_a_letter_is_in_doubt(tmp_path: Path) -> None:
    """An older copy was put back over a version of which a part died by another decoder: the job does it again."""
    archive, key = str(tmp_path / "archive"), run_key(sample.RECORD)
    older = VideoRef(str(tmp_path / "a.mp4"), 7, "old-7", 1_000)
    newer = replace(older, fingerprint="new-7", modified_us=2_000)
    writer = sample.opened(archive)
    sample.commit(writer, sample.units(older)[0])
    one, two = sample.units(newer, 2)
    sample.commit(writer, one)
    writer.dead_letter(two, "corrupt", "", "decode")
    assert load_ledger(archive, key, decoder_versions()).doubtful
    told = plan_found([older], archive, key)
    done = as_versions(archive, key, [older])
    assert told.videos == done
    assert told.states == make_plan(done, archive, key).states == [State.CHANGED]


def test_a_plan_for_no_archive_is_all_new(place: str) -> None:
    put(place, "a.mp4", b"a")
    plan = make_plan(find_videos([storage.join(place, "videos")]), storage.join(place, "archive"), "r0")
    assert states(plan) == {"a.mp4": State.NEW}


def touchable(tmp_path: Path) -> tuple[Path, str, VideoRef]:
    """A file on disk that an archive holds with the hash of its content."""
    file = tmp_path / "a.mp4"
    file.write_bytes(b"content" * 1000)
    archive = str(tmp_path / "archive")
    video = find_videos([str(file)])[0]
    writer = sample.opened(archive)
    sample.commit(writer, sample.units(replace(video, content=content_hash(video)))[0])
    return file, archive, video


def state_of(file: Path, archive: str, key: str = run_key(sample.RECORD)) -> State:
    plan = make_plan(find_videos([str(file)]), archive, key)
    return compare_content(plan, archive, key).states[0]


def test_a_touched_file_is_told_from_a_changed_one(tmp_path: Path) -> None:
    file, archive, _ = touchable(tmp_path)
    assert state_of(file, archive) == State.DONE
    os.utime(file, (2e9, 2e9))
    assert state_of(file, archive) == State.TOUCHED
    file.write_bytes(b"CONTENT" * 1000)
    assert state_of(file, archive) == State.CHANGED


def test_what_was_written_down_as_touched_is_done_until_it_changes(tmp_path: Path) -> None:
    file, archive, _ = touchable(tmp_path)
    key = run_key(sample.RECORD)
    os.utime(file, (2e9, 2e9))
    video = find_videos([str(file)])[0]
    record_touch(archive, key, video, earlier_versions(archive, key, load_ledger(archive, key), [video])[video.uri])
    assert make_plan([video], archive, key).states == [State.DONE]
    os.utime(file, (2.1e9, 2.1e9))
    assert state_of(file, archive) == State.TOUCHED


def test_only_the_version_whose_masks_are_shown_is_compared_with(tmp_path: Path) -> None:
    """A file that changed and was put back is done again: readers see the masks of the change."""
    file, archive, video = touchable(tmp_path)
    later = replace(video, fingerprint="between", modified_us=video.modified_us + 1, content="00" * 32)
    sample.commit(sample.opened(archive), sample.units(later)[0])
    os.utime(file, (2e9, 2e9))
    assert state_of(file, archive) == State.CHANGED


def test_another_run_does_not_make_a_file_touched(tmp_path: Path) -> None:
    file, archive, _ = touchable(tmp_path)
    os.utime(file, (2e9, 2e9))
    assert state_of(file, archive, run_key(OTHER)) == State.CHANGED


def test_videos_that_are_gone_are_found_on_demand(place: str) -> None:
    archive = storage.join(place, "archive")
    stays, goes, elsewhere = (put(place, f"{name}.mp4", name.encode()) for name in ("stays", "goes", "elsewhere"))
    writer = sample.opened(archive)
    for video in (stays, goes, elsewhere):
        sample.commit(writer, sample.units(video)[0])
    storage.delete(goes.uri)
    plan = with_deleted(make_plan([stays], archive, writer.run_key), archive)
    assert states(plan) == {"stays.mp4": State.DONE, "goes.mp4": State.DELETED}
    assert plan.pending == []


def test_a_plan_is_a_manifest(tmp_path: Path) -> None:
    videos = [put(str(tmp_path), f"{name}.mp4", name.encode()) for name in ("a", "b")]
    plan = make_plan(videos, str(tmp_path / "archive"), "r0")
    table = plan.to_table()
    assert table.schema == PLAN_SCHEMA
    plan.write(str(tmp_path / "plans" / "tonight.parquet"))
    assert pq.read_table(tmp_path / "plans" / "tonight.parquet") == table
    assert find_videos([str(tmp_path / "plans" / "tonight.parquet")]) == videos


def test_a_plan_as_a_manifest_leaves_out_what_it_found_gone(tmp_path: Path) -> None:
    """What is done stays: it is done in the run of the plan, and the manifest may be given to another."""
    archive, out = str(tmp_path / "archive"), tmp_path / "tonight.parquet"
    stays, goes, new = (put(str(tmp_path), f"{name}.mp4", name.encode()) for name in ("stays", "goes", "new"))
    writer = sample.opened(archive)
    for video in (stays, goes):
        sample.commit(writer, sample.units(video)[0])
    storage.delete(goes.uri)
    with_deleted(make_plan([stays, new], archive, writer.run_key), archive).write(str(out))
    assert "deleted" in pq.read_table(out)["state"].to_pylist()
    assert find_videos([str(out)]) == sorted([stays, new], key=lambda video: video.uri)
