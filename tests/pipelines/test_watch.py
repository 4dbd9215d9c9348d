"""The journal against a naive reading of its rules; watched stages without Ray, a worker's death played."""

from contextlib import AbstractContextManager, nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avs_core.clip import Unit, VideoRef
from avs_core.errors import DecodeTimeout, MediaError, TruncatedMedia, WorkerUnavailable
from avs_core.pipelines.stages import DEAD, FAILED, OK, SUSPECT, WHOLE, Row, dead_row, new_row
from avs_core.pipelines.watch import COMMIT, STARTS_IN_VAIN, InTurn, Journal, StagePlan, Watched, Witness

UNIT = Unit(VideoRef("/v.mp4", 1, "f"), 0, 5)
ROW = new_row(UNIT)
NODE = "node"


class Killed(BaseException):
    """What a worker's end looks like from inside a process that has to live on."""


class Here:
    """A witness in this process, for workers on one node."""

    def __init__(self, journal: Journal, node: str = NODE) -> None:
        self.journal, self.node = journal, node
        self.dying = False

    def start(self, stage: str) -> int:
        return self.journal.start(stage)

    def begin(self, stage: str, unit_id: str) -> bool:
        return self.journal.begin(stage, unit_id, self.node)

    def end(self, stage: str, unit_id: str) -> None:
        if not self.dying:  # the dead tell nothing
            self.journal.end(stage, unit_id)

    def turn(self) -> AbstractContextManager[None]:
        return nullcontext()


class Stage:
    """Does to a row what it was built to do."""

    def __init__(self, fault: MediaError | None = None, dies: bool = False) -> None:
        self._fault, self._dies = fault, dies
        self.seen: list[str] = []

    def __call__(self, row: Row) -> Row:
        self.seen.append(row["status"])
        if self._dies:
            raise Killed
        return row if self._fault is None else dead_row(row, "decode", self._fault)


def watched(witness: Here, name: str = "decode", **arguments: object) -> Watched:
    assert isinstance(witness, Witness)
    return Watched(StagePlan(name, Stage, dict(arguments)), witness, 1)


def die(witness: Here, row: Row, name: str = "decode") -> None:
    stage, witness.dying = watched(witness, name, dies=True), True
    with pytest.raises(Killed):
        stage(row)
    witness.dying = False


def alive(node: str) -> bool:
    return True


def test_a_row_that_killed_its_worker_comes_back_as_a_suspect_and_stays_one() -> None:
    witness = Here(Journal(alive))
    die(witness, ROW)
    for _ in range(2):
        row = watched(witness)(ROW)
        assert (row["status"], row["error_class"], row["stage"]) == (SUSPECT, "worker_crash", "decode")
    assert watched(witness)(new_row(Unit(VideoRef("/w.mp4", 1, "f"), 0, 5)))["status"] == OK


def test_the_same_alone_is_dead() -> None:
    witness = Here(Journal(alive))
    die(witness, alone := ROW | {"alone": True, "attempts": 1})
    row = watched(witness)(alone)
    assert (row["status"], row["error_class"], row["attempts"]) == (DEAD, "worker_crash", 1)
    assert "avs dead retry" in row["message"]


def test_what_the_commit_dies_of_is_left_to_the_next_run_because_a_letter_would_kill_it_too() -> None:
    witness = Here(Journal(alive))
    die(witness, alone := ROW | {"alone": True}, COMMIT)
    assert watched(witness, COMMIT)(alone)["status"] == FAILED


def test_a_lost_node_blames_nobody() -> None:
    lost = {"lost"}
    journal = Journal(lambda node: node not in lost)
    die(Here(journal, "lost"), ROW)
    assert watched(Here(journal, "other"))(ROW)["status"] == OK


def test_an_error_that_the_worker_survives_is_no_crash() -> None:
    witness = Here(Journal(alive))
    with pytest.raises(Killed):
        watched(witness, dies=True)(ROW)
    assert watched(witness)(ROW)["status"] == OK


@pytest.mark.parametrize(
    ("fault", "alone", "status"),
    [
        (DecodeTimeout("slow"), False, SUSPECT),
        (DecodeTimeout("slow"), True, DEAD),
        (TruncatedMedia("short"), False, DEAD),
    ],
)
def test_only_what_a_neighbour_may_cause_is_tried_again(fault: MediaError, alone: bool, status: str) -> None:
    row = watched(Here(Journal(alive)), fault=fault)(ROW | {"alone": alone})
    assert (row["status"], row["error_class"]) == (status, fault.dead_class)


def test_suspects_and_failed_rows_pass_untouched_and_the_dead_and_the_whole_reach_the_stage() -> None:
    stage = watched(Here(Journal(alive)))
    for status in (SUSPECT, FAILED, DEAD, WHOLE):
        stage(ROW | {"status": status, "error_class": "truncated"})
    assert stage._stage.seen == [DEAD, WHOLE]


def test_workers_that_die_at_their_start_end_the_job_instead_of_starting_for_ever() -> None:
    witness = Here(Journal(alive))
    for _ in range(1 + STARTS_IN_VAIN):
        watched(witness)
    with pytest.raises(WorkerUnavailable, match=r"9 of stage decode died before"):
        watched(witness)
    watched(witness, "segment")(ROW)
    witness.begin("decode", UNIT.unit_id)
    watched(witness)


def test_in_turn_a_row_goes_through_all_stages_and_a_dead_one_stays_dead() -> None:
    plans = [
        StagePlan("a", Stage, {}),
        StagePlan("b", Stage, {"fault": TruncatedMedia("short")}),
        StagePlan("c", Stage, {}),
    ]
    assert InTurn(plans, Here(Journal(alive)), 1)(ROW)["error_class"] == "truncated"


def in_turn(witness: Here, pool: int, **arguments: object) -> InTurn:
    plans = [StagePlan("decode", Stage, {}), StagePlan("segment", Stage, dict(arguments)), StagePlan(COMMIT, Stage, {})]
    return InTurn(plans, witness, pool)


def test_as_many_guilty_ones_as_there_are_nodes_are_dead_and_no_workers_are_missed() -> None:
    """All of them kill before any of their workers has begun a later stage, and all start anew at once."""
    nodes = 3 * STARTS_IN_VAIN
    journal = Journal(alive)
    witnesses = [Here(journal, f"node{index}") for index in range(nodes)]
    rows = [new_row(Unit(VideoRef(f"/{index}.mp4", 1, "f"), 0, 5)) | {"alone": True} for index in range(nodes)]
    for worker, witness, row in zip(
        [in_turn(witness, nodes, dies=True) for witness in witnesses], witnesses, rows, strict=True
    ):
        witness.dying = True
        with pytest.raises(Killed):
            worker(row)
        witness.dying = False
    again = [in_turn(witness, nodes, dies=True) for witness in witnesses]
    ends = [worker(row) for worker, row in zip(again, rows, strict=True)]
    assert {(row["status"], row["error_class"]) for row in ends} == {(DEAD, "worker_crash")}


def test_workers_that_do_all_stages_and_die_at_their_start_end_the_job_too() -> None:
    witness = Here(Journal(alive))
    for _ in range(2 + STARTS_IN_VAIN):
        in_turn(witness, 2)
    with pytest.raises(WorkerUnavailable, match="in a pool of 2"):
        in_turn(witness, 2)


ACTS = st.lists(st.tuples(st.sampled_from("bed"), st.integers(0, 2)), max_size=40)


@given(ACTS)
def test_a_unit_is_suspected_from_its_first_death_on_and_never_else(acts: list[tuple[str, int]]) -> None:
    journal, begun, died = Journal(alive), set[int](), set[int]()
    for act, unit in acts:
        if act == "b" and unit not in begun:  # a retry after the worker's death, or the first try
            assert journal.begin("decode", str(unit), NODE) == (unit not in died)
            begun |= {unit} - died
        elif act == "e" and unit in begun:
            journal.end("decode", str(unit))
            begun -= {unit}
        elif act == "d" and unit in begun:
            died.add(unit)
            begun -= {unit}
