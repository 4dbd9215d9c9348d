"""Which unit kills its worker: stages under a witness that outlives them. No Ray here.

A stage tells the witness what it begins and what it has ended. A worker that dies can't tell the end, so that whoever
gets the row next is told of a try that never ended: the row goes back as a suspect instead of killing once more, and
runs alone at the end of the job (`suspects`). A suspect that kills its worker there too has nobody else to blame.

A row that is retried because its node was lost, or because the worker died of another row of its pack, is no suspect.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from avs_core.errors import DEAD_CLASSES, WorkerCrashed, WorkerUnavailable
from avs_core.pipelines import wire
from avs_core.pipelines.stages import DEAD, FAILED, STOPPED, SUSPECT, Row, dead_row, failed_row

STARTS_IN_VAIN = 8
"""How many more workers than its pool has may start one after the other before one of them takes up a unit."""

COMMIT = "commit"
"""The stage that buries can't bury what kills it: such a unit is left to the next run."""


@runtime_checkable
class Witness(Protocol):
    """Remembers what workers began, also those that died of it."""

    def start(self, stage: str) -> int:
        """A worker of the stage starts; how many did since one of them began a unit, this one included."""

    def begin(self, stage: str, unit_id: str) -> bool:
        """A unit is to be tried. False where an earlier try in this stage never ended: hands off."""

    def end(self, stage: str, unit_id: str) -> None:
        """The try is over, in whatever way: the worker lives."""

    def turn(self) -> AbstractContextManager[None]:
        """The worker's turn on its node: begins once no other worker there has its own, ends with the worker too."""


class Journal:
    """What a witness remembers. `node_lives` tells whether a node, by its id, is still part of the cluster."""

    def __init__(self, node_lives: Callable[[str], bool]) -> None:
        self._node_lives = node_lives
        self._starts: Counter[str] = Counter()
        self._open: dict[tuple[str, str], str] = {}
        self._suspects: set[tuple[str, str]] = set()

    def start(self, stage: str) -> int:
        """See `Witness.start`."""
        self._starts[stage] += 1
        return self._starts[stage]

    def begin(self, stage: str, unit_id: str, node: str) -> bool:
        """See `Witness.begin`; a try on a node that is gone ended with the node, which blames nobody."""
        self._starts[stage] = 0
        task = stage, unit_id
        if task in self._open and self._node_lives(self._open[task]):
            self._suspects.add(task)
        if task in self._suspects:
            return False
        self._open[task] = node
        return True

    def end(self, stage: str, unit_id: str) -> None:
        """See `Witness.end`."""
        self._open.pop((stage, unit_id), None)


@dataclass(frozen=True)
class StagePlan:
    """A stage to be built where it will run: its name, its class and what that is built with."""

    name: str
    kind: type
    arguments: dict[str, Any]


class _Stage:
    """A stage under a witness, in a worker that has told of its start."""

    def __init__(self, plan: StagePlan, witness: Witness) -> None:
        self._name, self._witness = plan.name, witness
        self._stage = plan.kind(**plan.arguments)

    def __call__(self, row: Row) -> Row:
        """What the stage makes of the row, or a suspect."""
        if row["status"] in (SUSPECT, FAILED, STOPPED):
            return row
        if not self._witness.begin(self._name, row["unit_id"]):
            return self._crashed(row)
        try:
            done: Row = self._stage(row)
        finally:
            self._witness.end(self._name, row["unit_id"])
        return _judged(done)

    def _crashed(self, row: Row) -> Row:
        unit = wire.unit_from_text(row["unit"])
        fault = WorkerCrashed(
            f"a worker must survive its unit; stage {self._name} died of seconds [{unit.start_s}, {unit.stop_s}) of "
            f"{unit.video.uri} with nothing beside it: look at the memory of the nodes, then `avs dead retry`"
        )
        if row["alone"] and self._name == COMMIT:
            return failed_row(row, self._name, fault)
        return _judged(dead_row(row, self._name, fault))


class Watched(_Stage):
    """A stage in a worker of its own."""

    def __init__(self, plan: StagePlan, witness: Witness, pool: int) -> None:
        """Build the stage, one of `pool`. Raises `WorkerUnavailable` when the workers before it all died at it."""
        _tell_start(plan.name, witness, pool)
        super().__init__(plan, witness)


class InTurn:
    """Several stages in one worker, a row through all of them before the next, with no other such row on its node."""

    def __init__(self, plans: Sequence[StagePlan], witness: Witness, pool: int) -> None:
        """Build the stages, in one of `pool` workers. Raises as `Watched` does.

        A start counts for the first stage, which every row begins with: later ones may kill without being begun anew.
        """
        _tell_start(plans[0].name, witness, pool)
        self._witness = witness
        self._stages = [_Stage(plan, witness) for plan in plans]

    def __call__(self, row: Row) -> Row:
        """What the last stage makes of it."""
        with self._witness.turn():
            for stage in self._stages:
                row = stage(row)
        return row


def _tell_start(name: str, witness: Witness, pool: int) -> None:
    starts = witness.start(name)
    if starts > pool + STARTS_IN_VAIN:
        raise WorkerUnavailable(
            f"a worker must live until it takes up a unit; {starts - 1} of stage {name} died before, one after the "
            f"other, in a pool of {pool}: look at the memory of the nodes (avs doctor)"
        )


def _judged(row: Row) -> Row:
    """A row that died in company, of what company may cause, is a suspect."""
    if row["status"] != DEAD or row["alone"] or not DEAD_CLASSES[row["error_class"]].by_neighbour:
        return row
    return row | {"status": SUSPECT}
