"""The stages as plain callables: real files, the built-in model, a real archive on disk, no Ray."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from avs_core import storage
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.read import dead_letters, open_archive, open_frames, read_commits
from avs_core.archive.schema import RunRecord, run_key
from avs_core.archive.verify import archive_digest, verify
from avs_core.clip import Clip, Unit, VideoRef
from avs_core.errors import AccessDenied, NotApplied, OutcomeUnknown, StorageError
from avs_core.media.config import DecodeConfig, DecodeLimits
from avs_core.models.bundle import load_bundle
from avs_core.models.correlation import Weighing
from avs_core.pipelines import stages, wire
from avs_core.pipelines.flows import UnitFlows
from avs_core.pipelines.inputs import find_videos
from avs_core.pipelines.model_stage import DEVICE_LOST, SegmentUnit, device_lost, end_process
from avs_core.pipelines.pools import Pool, Pools
from avs_core.pipelines.segment import run_record
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import (
    DEAD,
    FAILED,
    OK,
    WHOLE,
    CommitUnit,
    DecodeUnit,
    ProbeVideo,
    Row,
    new_row,
    row_to_probe,
    with_retries,
)
from avs_core.pipelines.units import cut, unprobed
from tests.archive import sample
from tests.models.two_stage_sample import TINY, tiny_bundle
from tests.tiny_bundle import tiny_instances

RECORD = RunRecord(model="m", weights_sha256="0" * 64)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STORE_BACKOFF_S", 0.0)


def video(path: Path) -> VideoRef:
    return find_videos([str(path)])[0]


def test_a_clip_goes_through_all_stages_into_an_archive_that_holds(demo_clips: list[Path], tmp_path: Path) -> None:
    config = SegmentConfig(archive=str(tmp_path / "archive"))
    bundle = load_bundle(config.model)
    record = run_record(config, bundle)
    decode, limits = config.decode_config(bundle.config.size), config.decode_limits()
    with closing(ProbeVideo(decode, limits, 5)) as probe, closing(DecodeUnit(decode, limits)) as decoder:
        _go_through(probe, decoder, video(demo_clips[0]), config, record)


def _go_through(
    probe: ProbeVideo, decoder: DecodeUnit, clip: VideoRef, config: SegmentConfig, record: RunRecord
) -> None:
    ArchiveWriter(config.archive, record).open_run()
    probed = probe(row_to_probe(clip))
    units = [wire.unit_from_text(text) for text in probed["units"].splitlines()]
    assert [(unit.start_s, unit.stop_s) for unit in units] == [(0, 5), (5, 6)]

    chain = decoder, SegmentUnit(config.model, "cpu", None, None), CommitUnit(config.archive, record)
    digests = []
    for _ in range(2):
        for unit in units:
            row: Row = new_row(unit)
            for stage in chain:
                row = stage(row)
            assert (row["status"], row["n_frames"]) == (OK, unit.stop_s - unit.start_s)
            assert not row["clip"] + row["rows"] + row["frames"]
        digests.append(archive_digest(config.archive))
    assert digests[0] == digests[1]
    assert not verify(config.archive).problems
    times = open_frames(config.archive).to_table().column("frame_time_us").to_pylist()
    assert times == [second * 1_000_000 + 920_000 for second in range(6)]  # 25 fps: shown at 0.9375 s since 0.92 s
    assert open_archive(config.archive).count_rows() == sum(commit.instances for commit in read_commits(config.archive))


def test_objects_reach_the_archive_with_their_names_and_scores(demo_clips: list[Path], tmp_path: Path) -> None:
    model = tiny_instances(tmp_path / "tiny")
    config = SegmentConfig(archive=str(tmp_path / "archive"), model=model)
    bundle = load_bundle(model)
    record = run_record(config, bundle)
    assert record.categories == ("dog", "cat", "cow")
    decode, limits = config.decode_config(bundle.config.size), config.decode_limits()
    with closing(ProbeVideo(decode, limits, 5)) as probe, closing(DecodeUnit(decode, limits)) as decoder:
        _go_through(probe, decoder, video(demo_clips[0]), config, record)
    rows = open_archive(config.archive).to_table().to_pylist()
    whole, objects = ([row for row in rows if (row["object_id"] == 0) == union] for union in (True, False))
    assert whole
    assert objects
    assert {(row["category"], row["category_score"], row["audio_score"]) for row in whole} == {(None, None, None)}
    for row in objects:
        assert row["category"] in bundle.categories
        assert all(0 <= row[score] <= 1 for score in ("score", "category_score", "audio_score"))
        assert row["sounding"] == (row["score"] > 0.4)


def test_how_long_units_are_does_not_name_the_run(tmp_path: Path) -> None:
    bundle = load_bundle(model := tiny_instances(tmp_path / "tiny"))
    keys = {run_key(run_record(SegmentConfig(archive="a", model=model, unit_s=unit_s), bundle)) for unit_s in (5, 60)}
    assert len(keys) == 1


def test_a_video_whose_publisher_died_is_published_without_another_look(demo_clips: list[Path], tmp_path: Path) -> None:
    config = SegmentConfig(archive=str(tmp_path / "archive"), model="tpavi-light")
    record = run_record(config, bundle := load_bundle(config.model))
    (writer := ArchiveWriter(config.archive, record)).open_run()
    decode, model = config.decode_config(bundle.config.size), SegmentUnit(config.model, "cpu", None, None)
    units = cut(video(demo_clips[0]), 6, 5)
    with closing(DecodeUnit(decode, config.decode_limits())) as decoder:
        for row in map(model, map(decoder, map(new_row, units))):
            writer.stage_unit(
                wire.unit_from_text(row["unit"]), *map(wire.table_from_bytes, (row["rows"], row["frames"]))
            )
    assert read_commits(config.archive) == []
    row = new_row(units[-1]) | {"status": WHOLE}
    for stage in (DecodeUnit(DecodeConfig(size=1), DecodeLimits()), model, CommitUnit(config.archive, record)):
        row = stage(row)
    assert (row["status"], row["n_frames"]) == (WHOLE, 0)
    assert {commit.unit_id for commit in read_commits(config.archive)} == {unit.unit_id for unit in units}
    assert open_frames(config.archive).count_rows() == 6
    assert not verify(config.archive).problems


@pytest.mark.parametrize("change", [{"temperature": 2.0}, {"weighing": Weighing(own=0.3, rival=1.0, shift=0.5)}])
def test_how_objects_are_named_and_weighed_names_the_run(tmp_path: Path, change: dict[str, Any]) -> None:
    config, bundle = SegmentConfig(archive="a"), load_bundle(tiny_instances(tmp_path / "tiny"))
    assert bundle.config.instance_aware is not None
    changed = bundle.config.instance_aware.model_copy(update=change)
    other = replace(bundle, config=bundle.config.model_copy(update={"instance_aware": changed}))
    assert run_key(run_record(config, bundle)) != run_key(run_record(config, other))


def test_what_a_detector_keeps_names_the_run_though_no_weight_tells() -> None:
    config, bundle = SegmentConfig(archive="a"), tiny_bundle()
    fewer = TINY.model_copy(update={"detector": TINY.detector.model_copy(update={"objects": 3})})
    other = replace(bundle, config=bundle.config.model_copy(update={"two_stage": fewer}))
    first, second, third = (run_key(run_record(config, one)) for one in (bundle, other, bundle))
    assert first == third != second


def test_a_row_that_was_whole_and_is_not_any_more_is_left_to_the_next_run(tmp_path: Path) -> None:
    """Its staged units were collected, or its letters retried, since the ledger was read."""
    archive = str(tmp_path / "archive")
    ArchiveWriter(archive, RECORD).open_run()
    row = new_row(cut(VideoRef("/v.mp4", 1, "f"), 10, 5)[-1]) | {"status": WHOLE}
    done = CommitUnit(archive, RECORD)(row)
    assert (done["status"], done["stage"], done["error_class"]) == (FAILED, "commit", "NotApplied")
    assert "/v.mp4" in done["message"]
    assert not read_commits(archive)


def test_a_unit_that_another_worker_did_otherwise_stays_as_it_was_and_the_job_goes_on(tmp_path: Path) -> None:
    """A node is lost after it committed, and the unit is done again on one that rounds differently."""
    archive = str(tmp_path / "archive")
    ArchiveWriter(archive, RECORD).open_run()
    commit, (unit,) = CommitUnit(archive, RECORD), cut(VideoRef("/v.mp4", 1, "f"), 5, 5)
    rows, others = (sample.sightings(unit, seed) for seed in (0, 50))
    asked = [
        new_row(unit) | {"rows": wire.table_to_bytes(seen), "frames": wire.table_to_bytes(looked)}
        for seen, looked in (rows, others)
    ]
    assert commit(asked[0])["status"] == OK
    before = archive_digest(archive)
    done = commit(asked[1])
    assert (done["status"], done["stage"], done["error_class"]) == (FAILED, "commit", "CommitConflict")
    assert archive_digest(archive) == before
    assert commit(asked[0])["status"] == OK


@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"), False),
        (torch.AcceleratorError("CUDA error: out of memory"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA error: said by somebody else"), False),
    ],
)
def test_which_errors_mean_that_the_gpu_is_lost_to_the_process(fault: Exception, lost: bool) -> None:
    assert device_lost(fault) == lost


class Broken(SegmentUnit):
    """A model that raises."""

    fault: Exception = RuntimeError()

    def tables(self, unit: Unit, clip: Clip) -> NoReturn:
        raise self.fault


@pytest.mark.parametrize(
    ("fault", "ends", "failed"),
    [
        (RuntimeError("CUDA error: unspecified launch failure"), True, False),
        (torch.AcceleratorError("CUDA error: out of memory"), False, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False, True),
        (torch.OutOfMemoryError("CUDA out of memory"), False, True),
        (RuntimeError("a bug of ours"), False, False),
    ],
)
def test_a_process_that_lost_its_gpu_ends_and_no_other_does(fault: Exception, ends: bool, failed: bool) -> None:
    """So that its unit is a suspect, and Ray starts another worker; what is a bug still ends the job."""
    ended: list[BaseException] = []
    stage = Broken("tpavi-light", "cpu", None, None, die=ended.append)
    stage.fault = fault
    clip = Clip(
        frames=np.zeros((1, 1, 2, 2, 3), np.uint8),
        frame_index=np.zeros((1, 1), np.int64),
        frame_time_us=np.zeros((1, 1), np.int64),
        waveform=np.zeros(16_000, np.float32),
        audio_start_s=0.0,
        height=2,
        width=2,
        shown=25,
    )
    row = new_row(unprobed(VideoRef("/v.mp4", 1, "f"))) | {"clip": wire.clip_to_bytes(clip)}
    if failed:
        assert stage(row)["status"] == FAILED
    else:
        with pytest.raises(RuntimeError):  # where the process does not end, as here
            stage(row)
    assert ended == ([fault] if ends else [])


def test_a_process_that_can_not_load_its_model_for_want_of_a_gpu_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = RuntimeError("CUDA error: unspecified launch failure")

    def broken(*arguments: object) -> NoReturn:
        raise fault

    monkeypatch.setattr("avs_core.pipelines.model_stage.open_segmenter", broken)
    ended: list[BaseException] = []
    with pytest.raises(RuntimeError):
        SegmentUnit("tpavi-light", "cpu", None, None, die=ended.append)
    assert ended == [fault]


def test_a_process_ends_with_its_gpu_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    statuses: list[int] = []
    monkeypatch.setattr("os._exit", statuses.append)
    end_process(RuntimeError("CUDA error: uncorrectable ECC error encountered"))
    assert statuses == [DEVICE_LOST]
    assert "uncorrectable ECC" in caplog.text


def test_workers_ask_the_registry_that_the_job_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another node has neither the folder that the driver fetched the model to nor, perhaps, its environment."""
    folder, asked = tiny_instances(tmp_path / "tiny"), list[tuple[str, str | None]]()

    def resolved(model: str, tracking_uri: str | None = None) -> str:
        asked.append((model, tracking_uri))
        return folder

    monkeypatch.setattr("avs_core.pipelines.model_stage.resolve_model", resolved)
    config = SegmentConfig(archive="a", model="models:/tiny/3")
    record = run_record(config, load_bundle(folder))
    pools = Pools(*[Pool(1, 1.0)] * 4)
    flows = UnitFlows(config, record, 64, stages.never, pools, "http://registry:5000")
    plan = flows._segment
    plan.kind(**plan.arguments)
    assert asked == [("models:/tiny/3", "http://registry:5000")]


def test_a_bad_file_passes_through_as_a_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 99)
    archive = str(tmp_path / "archive")
    with closing(ProbeVideo(DecodeConfig(), DecodeLimits(), 300)) as probe:
        row = probe(row_to_probe(video(tmp_path / "bad.mp4")))
    assert (row["status"], row["error_class"], row["units"]) == (DEAD, "unreadable", "")
    row = DecodeUnit(DecodeConfig(), DecodeLimits())(row)
    assert CommitUnit(archive, RECORD)(row)["status"] == DEAD
    storage.write_bytes(f"{archive}/_runs/{run_key(RECORD)}.json", RECORD.model_dump_json().encode())
    (letter,) = dead_letters(archive).to_pylist()
    assert (letter["error_class"], letter["stage"]) == ("unreadable", "probe")


def test_a_file_that_vanished_is_dead_and_not_a_fault_of_the_job(tmp_path: Path) -> None:
    gone = VideoRef(str(tmp_path / "gone.mp4"), 1, "f")
    with closing(ProbeVideo(DecodeConfig(), DecodeLimits(), 300)) as probe:
        row = probe(row_to_probe(gone))
    assert (row["status"], row["error_class"]) == (DEAD, "denied")


@pytest.mark.parametrize("key", ["clips/./x.mp4", "clips/../x.mp4", "clips/\0.mp4"])
def test_a_key_that_no_uri_may_hold_is_one_dead_letter(tmp_path: Path, key: str) -> None:
    listed = VideoRef(f"s3://b/{key}", 1, "etag-1")
    with closing(ProbeVideo(DecodeConfig(), DecodeLimits(), 300)) as probe:
        row = probe(row_to_probe(listed))
    assert (row["status"], row["error_class"], row["stage"]) == (DEAD, "unreadable", "probe")
    assert repr(listed.uri) in row["message"]
    assert row["message"].endswith("rename the object")
    ArchiveWriter(str(tmp_path), RECORD).open_run()
    assert CommitUnit(str(tmp_path), RECORD)(row)["status"] == DEAD
    assert dead_letters(str(tmp_path)).column("video_uri").to_pylist() == [listed.uri]
    assert verify(str(tmp_path)).problems == ()


def failing(faults: list[StorageError]) -> Callable[[], str]:
    def act() -> str:
        if faults:
            raise faults.pop(0)
        return "done"

    return act


def test_what_a_store_lost_for_a_moment_is_repeated_and_then_given_up() -> None:
    assert with_retries(failing([OutcomeUnknown("a"), NotApplied("b")])) == "done"
    with pytest.raises(OutcomeUnknown):
        with_retries(failing([OutcomeUnknown("a")] * stages.STORE_ATTEMPTS))


def test_what_will_not_change_is_not_repeated() -> None:
    faults: list[StorageError] = [AccessDenied("a"), AccessDenied("b")]
    with pytest.raises(AccessDenied):
        with_retries(failing(faults))
    assert len(faults) == 1


def test_a_store_that_stays_away_fails_the_unit_and_leaves_no_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: object, **settings: object) -> None:
        raise OutcomeUnknown("the connection broke")

    unit = unprobed(VideoRef("/v.mp4", 1, "f"))
    dead = new_row(unit) | {"status": DEAD, "stage": "decode", "error_class": "truncated", "message": "early end"}
    commit = CommitUnit(str(tmp_path / "archive"), RECORD)
    monkeypatch.setattr(storage, "put_if_absent", away)
    assert commit(dead)["status"] == FAILED
    monkeypatch.undo()
    assert not list(storage.list_files(str(tmp_path / "archive")))
