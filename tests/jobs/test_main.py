"""The command line: what it refuses, what it answers, and with which exit code. Nothing here starts Ray."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from cyclopts.config import Yaml

from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.schema import RunRecord
from avs_core.clip import Unit, VideoRef
from avs_core.errors import LeaseHeld, StoppedEarly, TooManyDeadLetters
from jobs.main import BUSY, DONE, DONE_WITH_DEAD, FAILED, INTERRUPTED, STOPPED, UNREAD, USAGE, app, exit_code, main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").write_bytes(b"not looked at")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "nowhere.mp4", "--archive", "a"], "must exist"),
        (["segment", "http://x/y.mp4", "--archive", "a"], "s3://"),
        (["segment", "a.mp4", "--archive", "ftp://x"], "s3://"),
        (["segment", "Concert [Live-2020].mp4", "--archive", "a"], "is the file there?"),
        (["reprocess", "a.mp4", "--archive", "a", "--deadline", "2026"], "2026-11-24T06:00"),
        (["reprocess", "a.mp4", "--archive", "a", "--deadline", "1700000000.5"], "2026-11-24T06:00"),
        (["gc", ".", "--older-than-days", "nan"], "--older-than-days nan"),
        (["segment", ".", "--archive", "a", "--rate", "0"], "rate"),
        (["segment", ".", "--archive", "a", "--unit-s", "7"], "multiple of 5"),
        (["segment", ".", "--archive", "a", "--threshold", "1.5"], "threshold"),
        (["segment", "."], "--archive"),
        (["segment", ".", "--archive", "a", "--nope"], "--nope"),
        (["segment", ".", "--archive", "a", "--resources.segment.gpus", "1.5"], "whole number, got 1.5"),
        (["segment", ".", "--archive", "a", "--decoder", "vlc"], "vlc"),
        (["verify", "nowhere"], "nowhere"),
        (["train", "no-such-recipe", "--out", "x"], "composites-light"),
        (["train"], "--list"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_is_explained_in_a_line_or_two(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--no-tracking"] if arguments[0] == "segment" else arguments) == USAGE
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not Path("a").exists()


def test_no_flag_of_a_verb_stands_for_two_settings() -> None:
    for verb in (app[name] for name in app if not name.startswith("-")):
        if verb.default_command is None:
            continue
        flags = [name for argument in verb.assemble_argument_collection() for name in argument.names if name != "*"]
        assert sorted(flags) == sorted(set(flags))


def test_the_hours_of_a_scheduled_job_are_not_those_of_a_video() -> None:
    _, bound, _ = app.parse_args(["reprocess", "a.mp4", "--archive", "a", "--max-hours", "6"], exit_on_error=False)
    assert bound.arguments["schedule"].max_hours == 6
    assert bound.arguments["config"].max_video_hours == 100


def test_what_workers_ask_for_stands_in_the_file_or_in_flags_and_a_flag_wins() -> None:
    asked = (
        "segment:\n  committers: 3\n  resources:\n    decode: {cpus: 1, memory_mb: 512}\n    segment: {gpus: 0.25}\n"
    )
    Path("run.yaml").write_text(asked)
    app.config = (Yaml("run.yaml", must_exist=True, use_commands_as_keys=True),)
    command = ["segment", "a.mp4", "--archive", "a", "--resources.segment.gpus", "0.5", "--decode-memory-mb", "2048"]
    try:
        _, bound, _ = app.parse_args(command, exit_on_error=False)
    finally:
        app.config = ()
    pools = bound.arguments["config"].pool_config()
    assert (pools.committers, pools.resources.decode.cpus, pools.resources.decode.memory_mb) == (3, 1, 512)
    assert (pools.resources.segment.gpus, pools.resources.segment.cpus) == (0.5, 0.75)


def test_a_model_that_is_not_there_fails_before_anything_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", ".", "--archive", "a", "--model", "no-such-model", "--no-tracking"]) == FAILED
    assert "no-such-model" in capsys.readouterr().err
    assert not Path("a").exists()


def test_dead_letters_are_listed_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    writer = ArchiveWriter("archive", RunRecord(model="m", weights_sha256="0" * 64))
    writer.open_run()
    writer.dead_letter(Unit(VideoRef("/v/broken.mp4", 1, "f"), 0, 1), "truncated", "it ends early", "decode")
    assert main(["dead", "archive", "--json"]) == DONE
    letter = json.loads(capsys.readouterr().out)
    assert (letter["video_uri"], letter["error_class"]) == ("/v/broken.mp4", "truncated")


def test_a_long_name_of_a_dead_video_is_listed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """It is what `dead show` and `dead retry --video` take; logs and pipes are 80 columns wide."""
    writer = ArchiveWriter("archive", RunRecord(model="m", weights_sha256="0" * 64))
    writer.open_run()
    uri = f"/{'v' * 60}/{'w' * 60}.mp4"
    writer.dead_letter(Unit(VideoRef(uri, 1, "f"), 0, 1), "truncated", f"{uri} ends early", "decode")
    assert main(["dead", "archive"]) == DONE
    told = capsys.readouterr().out
    assert told.count("v") >= 120
    assert told.count("w") == 120
    assert "…" not in told


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--rate", "0"], "--rate: Input should be greater than or equal to 1, got '0'"),
        (["--unit-s", "7"], "--unit-s: Input should be a multiple of 5, got '7'"),
        (["--mask-size", "0", "4"], "--mask-size: Input should be greater than"),
        (["--segmenters", "4:2"], "--segmenters: "),
        (["--price-cpu-hour", "nan"], "price of an hour must be 0 or more, got nan"),
        (["--resources.decode.cpus", "-1"], "--resources.decode.cpus: Input should be greater than or equal to 0.01"),
    ],
)
def test_a_setting_that_can_not_be_is_told_by_its_flag(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "videos", "--archive", "archive", *flags]) == USAGE
    said = capsys.readouterr().err
    assert told in said
    assert "validation error for" not in said
    assert "[type=" not in said
    assert "Value error" not in said


def test_what_is_damaged_is_named_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    writer = ArchiveWriter("archive", RunRecord(model="m", weights_sha256="0" * 64))
    writer.open_run()
    writer.dead_letter(Unit(VideoRef("/v/a.mp4", 1, "f"), 0, 1), "truncated", "it ends early", "decode")
    (letter,) = Path("archive/_dead").rglob("*.json")
    letter.write_text('{"unit_id": 3}')
    assert main(["dead", "archive"]) == FAILED
    said = capsys.readouterr().err
    assert str(letter.resolve()) in said
    assert "--unit-id" not in said


def test_a_config_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "nowhere.yaml", "plan", "videos", "--archive", "archive"]) == USAGE
    said = capsys.readouterr().err
    assert "there is none at nowhere.yaml" in said
    assert "Traceback" not in said


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == DONE
    assert capsys.readouterr().out.strip() == version("avs-on-ray")


def test_dead_letters_are_listed_shown_exported_and_retried(capsys: pytest.CaptureFixture[str]) -> None:
    writer = ArchiveWriter("archive", RunRecord(model="m", weights_sha256="0" * 64))
    writer.open_run()
    for name, error_class in (("a", "truncated"), ("b", "timeout"), ("c", "timeout")):
        writer.dead_letter(Unit(VideoRef(f"/v/{name}.mp4", 1, "f"), 0, 1), error_class, "it ends early", "decode")

    def said(*arguments: str, code: int = DONE) -> str:
        assert main(["dead", *arguments]) == code
        return capsys.readouterr().out

    assert [
        json.loads(line)["video_uri"] for line in said("list", "archive", "--class", "timeout", "--json").splitlines()
    ] == [
        "/v/b.mp4",
        "/v/c.mp4",
    ]
    assert "3 dead letters" in said("archive")
    shown = said("show", "archive", "/v/a.mp4")
    assert '"error_class": "truncated"' in shown
    assert "the file now: gone" in shown
    assert said("export", "archive", "dead.txt", "--video", "/v/a.mp4") == "1 dead letter in dead.txt\n"
    assert Path("dead.txt").read_text() == "/v/a.mp4\n"
    said("retry", "archive", code=USAGE)
    said("retry", "archive", "--all", "--class", "timeout", code=USAGE)
    assert said("retry", "archive", "--class", "timeout").startswith("2 dead letters removed")
    assert said("retry", "archive", "--all").startswith("1 dead letter removed")
    assert said("archive", "--json") == ""


def test_the_card_of_the_built_in_model_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info"]) == DONE
    assert "can't do" in capsys.readouterr().out
    assert main(["models", "list"]) == DONE
    assert "tpavi-light" in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_fault() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", "from jobs.main import run; run()", "models", "info"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (UNREAD, "")


def test_flags_may_stand_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text("segment:\n  archive: a\n  rate: 0\n")
    assert main(["--config", "run.yaml", "segment", "a.mp4", "--no-tracking"]) == USAGE
    assert "rate" in capsys.readouterr().err


def test_exit_codes_tell_a_scheduler_what_to_do() -> None:
    from avs_core.pipelines.segment import SegmentResult

    def result(dead: int, failed: int) -> SegmentResult:
        return SegmentResult("a", "r", 3, 3 - dead, 1, 1, dead, failed, 1.0, 1.0)

    assert exit_code(result(0, 0)) == DONE
    assert exit_code(result(1, 0)) == DONE_WITH_DEAD
    assert exit_code(result(1, 2)) == FAILED


@pytest.mark.parametrize(
    ("dead", "failed", "left", "shown", "overtaken", "code"),
    [
        (0, 0, 0, "r", False, DONE),
        (1, 0, 0, "r", False, DONE_WITH_DEAD),
        (0, 0, 0, "before", False, STOPPED),  # too little of what readers have was among the inputs
        (1, 0, 0, "before", False, STOPPED),
        (0, 0, 0, "newer", True, STOPPED),
        (0, 0, 1, "r", False, STOPPED),
        (0, 1, 0, "before", False, FAILED),
    ],
)
def test_a_scheduler_is_told_that_readers_do_not_get_the_new_run(
    dead: int,
    failed: int,
    left: int,
    shown: str,
    overtaken: bool,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from avs_core.pipelines.coverage import Coverage
    from avs_core.pipelines.main_job import DoneJob
    from avs_core.pipelines.reprocess import Reprocessed
    from avs_core.pipelines.segment import SegmentResult

    result = SegmentResult("a", "r", 3, 3 - dead, 1, 1, dead, failed, 1.0, 1.0, 0, left)
    done = DoneJob(result, [], (), None, None, shown)
    scheduled = Reprocessed(done, Coverage(0.5, 0, 3), shown, overtaken=overtaken)
    monkeypatch.setattr("avs_core.pipelines.reprocess.reprocess", lambda *_: scheduled)
    assert main(["reprocess", "a.mp4", "--archive", "a"]) == code
    assert ("took the lease over" in capsys.readouterr().out) == overtaken
    assert main(["reprocess", "a.mp4", "--archive", "a", "--json"]) == code
    line = json.loads(capsys.readouterr().out)
    assert (line["current"], line["switched"], line["overtaken"]) == (shown, False, overtaken)


def every_job_ends_with(error: BaseException, patch: pytest.MonkeyPatch) -> None:
    """In place of the scheduled job."""

    def reprocess(*_: object) -> None:
        raise error

    patch.setattr("avs_core.pipelines.reprocess.reprocess", reprocess)


def test_a_job_whose_grace_is_over_and_a_person_who_interrupts_end_with_other_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ends_with(error: BaseException) -> int:
        every_job_ends_with(error, monkeypatch)
        return main(["reprocess", "a.mp4", "--archive", "a"])

    assert ends_with(StoppedEarly("the grace was over")) == STOPPED
    assert ends_with(KeyboardInterrupt()) == INTERRUPTED
    assert ends_with(LeaseHeld("one job at a time")) == BUSY


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LeaseHeld("one job at a time"), BUSY),
        (StoppedEarly("the grace was over"), STOPPED),
        (TooManyDeadLetters("at most 1%"), FAILED),
        (KeyboardInterrupt(), INTERRUPTED),
    ],
)
def test_a_machine_gets_a_line_however_the_job_ends(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every_job_ends_with(error, monkeypatch)
    assert main(["reprocess", "a.mp4", "--archive", "a", "--json"]) == code
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    ended = json.loads(line)
    assert ended["exit_code"] == code
    assert f"{ended['error']}: {ended['message']}" == said.err.strip()
    assert str(error) in ended["message"]
    assert main(["reprocess", "a.mp4", "--archive", "a"]) == code
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), BrokenPipeError(32, "of a socket")])
def test_nor_does_a_fault_that_is_not_ours(
    fault: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every_job_ends_with(fault, monkeypatch)
    assert main(["reprocess", "a.mp4", "--archive", "a", "--json"]) == FAILED
    said = capsys.readouterr()
    ended = json.loads(said.out)
    assert (ended["error"], ended["exit_code"]) == (type(fault).__name__, FAILED)
    assert str(fault) == ended["message"]
    assert "Traceback" in said.err


@pytest.mark.parametrize("verb", ["plan", "segment", "reprocess"])
def test_a_name_that_is_no_text_is_refused_in_a_line(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    Path(name).write_bytes(b"not looked at")
    flags = [] if verb == "plan" else ["--no-tracking", "--no-report"]
    assert main([verb, name, "--archive", "a", "--json", *flags]) == USAGE
    assert "caf" in json.loads(capsys.readouterr().out)["message"]


def test_nor_does_wrong_usage_leave_a_machine_without_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reprocess", "a.mp4", "--nope", "--json"]) == USAGE
    assert "--nope" in json.loads(capsys.readouterr().out)["message"]


def test_the_flat_price_of_a_budget_is_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reprocess", "--help"]) == DONE
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "however many nodes there are" in said


def test_an_interrupt_says_that_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(archive: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("avs_core.archive.verify.verify", interrupted)
    assert main(["verify", "archive"]) == INTERRUPTED
    assert "goes on from there" in capsys.readouterr().err
