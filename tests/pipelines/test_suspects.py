"""Who runs beside others and who alone, with flows that are plain generators; a real record of attempts on disk."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from avs_core import storage
from avs_core.archive.attempts import Attempts
from avs_core.clip import Unit, VideoRef
from avs_core.errors import OutcomeUnknown
from avs_core.pipelines import stages
from avs_core.pipelines.stages import DEAD, OK, SUSPECT, WHOLE, Row, new_row
from avs_core.pipelines.suspects import Aside, note

RUN = "r0"


def rows(*names: str) -> list[Row]:
    return [new_row(Unit(VideoRef(f"/{name}.mp4", 1, "f"), 0, 5)) for name in names]


def name(row: Row) -> str:
    return str(row["unit"]).partition('"uri": "/')[2].partition(".")[0]


def settle_all(rows: Sequence[Row], beside: "Flow", alone: "Flow", attempts: Attempts) -> Iterator[Row]:
    """What a job does with one round of rows."""
    aside = Aside(attempts)
    yield from aside.beside(rows, beside)
    yield from aside.alone(alone)
    assert not aside.waiting


class Flow:
    """Notes who came, and ends each row as it was told."""

    def __init__(self, ends: Callable[[Row], Row] = lambda row: row) -> None:
        self._ends = ends
        self.came: list[Row] = []

    def __call__(self, rows: Sequence[Row]) -> Iterator[Row]:
        for row in rows:
            self.came.append(row)
            yield self._ends(row)


def crashing(row: Row) -> Row:
    return row | {"status": SUSPECT, "stage": "segment", "error_class": "worker_crash"} if "x" in name(row) else row


def test_suspects_run_alone_after_all_others_each_with_its_attempts(tmp_path: Path) -> None:
    beside, alone = Flow(crashing), Flow()
    found = list(settle_all(rows("a", "x2", "b", "x1", "c"), beside, alone, Attempts(str(tmp_path), RUN)))
    assert [name(row) for row in found] == ["a", "b", "c", "x1", "x2"]
    assert [(name(row), row["alone"], row["attempts"], row["status"]) for row in alone.came] == [
        ("x1", True, 1, OK),
        ("x2", True, 1, OK),
    ]
    assert {row["alone"] for row in beside.came} == {False}


def test_suspects_of_all_rounds_wait_for_the_end(tmp_path: Path) -> None:
    aside, alone = Aside(Attempts(str(tmp_path), RUN)), Flow()
    for names in (("a", "x1"), ("b", "x2")):
        assert [name(row) for row in aside.beside(rows(*names), Flow(crashing))] == [names[0]]
    assert [name(row) for row in aside.waiting] == ["x1", "x2"]
    assert [name(row) for row in aside.alone(alone)] == ["x1", "x2"]
    assert [name(row) for row in aside.alone(alone)] == []


def test_alone_a_probe_still_knows_the_version_before(tmp_path: Path) -> None:
    alone, (row,) = Flow(), rows("x")
    list(settle_all([row | {"earlier": "hash"}], Flow(crashing), alone, Attempts(str(tmp_path), RUN)))
    assert [came["earlier"] for came in alone.came] == ["hash"]


def test_the_next_driver_knows_them_and_keeps_them_apart(tmp_path: Path) -> None:
    list(settle_all(rows("a", "x"), Flow(crashing), Flow(), Attempts(str(tmp_path), RUN)))
    beside, alone = Flow(crashing), Flow()
    list(settle_all(rows("a", "x"), beside, alone, Attempts(str(tmp_path), RUN)))
    assert [name(row) for row in beside.came] == ["a"]
    assert [(name(row), row["attempts"]) for row in alone.came] == [("x", 1)]
    other_run = Flow()
    list(settle_all(rows("x"), other_run, Flow(), Attempts(str(tmp_path), "r1")))
    assert len(other_run.came) == 1


def test_nobody_is_started_for_nothing(tmp_path: Path) -> None:
    def unwanted(row: Row) -> Row:
        raise AssertionError(row)

    never = Flow(unwanted)
    attempts = Attempts(str(tmp_path), RUN)
    assert len(list(settle_all(rows("a"), Flow(), never, attempts))) == 1
    list(settle_all(rows("x"), Flow(crashing), Flow(), attempts))
    assert len(list(settle_all(rows("x"), never, Flow(), attempts))) == 1


def test_a_video_that_is_whole_or_dead_already_needs_not_be_alone(tmp_path: Path) -> None:
    attempts = Attempts(str(tmp_path), RUN)
    (row,) = rows("x")
    note(row | {"error_class": "timeout", "stage": "decode"}, attempts)
    beside = Flow()
    list(settle_all([row | {"status": WHOLE}, row | {"status": DEAD}], beside, Flow(), attempts))
    assert [(came["status"], came["attempts"]) for came in beside.came] == [(WHOLE, 1), (DEAD, 1)]


def test_what_no_neighbour_can_cause_is_counted_and_makes_no_suspect(tmp_path: Path) -> None:
    attempts = Attempts(str(tmp_path), RUN)
    (row,) = rows("a")
    for _ in range(2):
        note(row | {"error_class": "truncated", "stage": "decode"}, attempts)
    again = Attempts(str(tmp_path), RUN)
    assert (again.count(row["unit_id"]), again.suspect(row["unit_id"])) == (2, False)
    assert (again.count("other"), again.suspect("other")) == (0, False)
    note(row | {"error_class": "decoder_crash", "stage": "decode"}, again)
    assert Attempts(str(tmp_path), RUN).suspect(row["unit_id"])


def test_a_store_that_is_away_costs_the_note_and_not_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: object) -> None:
        raise OutcomeUnknown("the connection broke")

    monkeypatch.setattr(stages, "STORE_BACKOFF_S", 0.0)
    attempts = Attempts(str(tmp_path), RUN)
    monkeypatch.setattr(storage, "put_if_absent", away)
    found = list(settle_all(rows("a", "x"), Flow(crashing), Flow(), attempts))
    assert [name(row) for row in found] == ["a", "x"]
    assert attempts.count(found[1]["unit_id"]) == 0
