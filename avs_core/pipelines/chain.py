"""Chains of Ray Data in which rows keep their number, workers may die, and errors keep their class."""

import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from avs_core.errors import AvsError
from avs_core.pipelines.turns import turn
from avs_core.pipelines.watch import InTurn, Journal, StagePlan, Watched, Witness

MAX_RETRIES = 3
"""Restarts of an actor that no witness watches, and retries of its rows after a crash. Ray's default is for ever."""

FOR_EVER = -1
"""For watched stages: the journal bounds what a unit may kill, and a lost node is nobody's fault."""

Row = dict[str, Any]


def one_row_blocks(rows: Sequence[Row]) -> Dataset:
    """One row a block, so that a row is the unit of scheduling and of retry."""
    return ray.data.from_items(list(rows), override_num_blocks=len(rows))


def pack_blocks(packs: Iterable[list[Row]]) -> Dataset:
    """One pack a block. All rows have the same columns.

    Not `from_arrow`, which runs a task for each of them before any work begins.
    """
    dataset: Dataset = ray.data.from_blocks([pa.Table.from_pylist(pack) for pack in packs])
    return dataset


def chain(
    dataset: Dataset, stage: type, arguments: dict[str, Any], compute: ActorPoolStrategy, **resources: float
) -> Dataset:
    """Append a stage: one row in, one row out, bounded retries."""
    return _mapped(dataset, stage, arguments, compute, MAX_RETRIES, resources)


def watched_chain(dataset: Dataset, plan: StagePlan, witness: Witness, pool: int, **resources: float) -> Dataset:
    """Append a stage of `pool` workers under a witness: one row in, one row out, and no row kills two of them."""
    arguments = {"plan": plan, "witness": witness, "pool": pool}
    return _mapped(dataset, Watched, arguments, ActorPoolStrategy(size=pool), FOR_EVER, resources)


def alone_chain(
    dataset: Dataset, plans: Sequence[StagePlan], witness: Witness, pool: int, **resources: float
) -> Dataset:
    """Append all of the stages in each of `pool` workers, which Ray Data spreads over the nodes."""
    arguments = {"plans": list(plans), "witness": witness, "pool": pool}
    return _mapped(dataset, InTurn, arguments, ActorPoolStrategy(size=pool), FOR_EVER, resources)


def _mapped(
    dataset: Dataset,
    stage: type,
    arguments: dict[str, Any],
    compute: ActorPoolStrategy,
    retries: int,
    resources: dict[str, float],
) -> Dataset:
    wanted: dict[str, Any] = {name: value for name, value in resources.items() if value}
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to bound retries: without these two a crashing input is retried for ever.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        return dataset.map(
            stage,
            fn_constructor_kwargs=arguments,
            compute=compute,
            max_restarts=retries,
            max_task_retries=retries,
            **wanted,
        )


class _RayJournal(Journal):
    """The journal as an actor of the driver: it dies with the driver's job, and with it what it could blame."""

    def __init__(self) -> None:
        super().__init__(_node_lives)


def _node_lives(node: str) -> bool:
    return any(known["NodeID"] == node and known["Alive"] for known in ray.nodes())


class RayWitness:
    """A `Witness` in a worker, which asks the driver's journal."""

    def __init__(self, journal: Any) -> None:
        """`journal` is the actor's handle."""
        self._journal = journal

    def start(self, stage: str) -> int:
        """See `Witness.start`."""
        starts: int = ray.get(self._journal.start.remote(stage))
        return starts

    def begin(self, stage: str, unit_id: str) -> bool:
        """See `Witness.begin`; it is on record before the unit is touched."""
        node = ray.get_runtime_context().get_node_id()
        free: bool = ray.get(self._journal.begin.remote(stage, unit_id, node))
        return free

    def end(self, stage: str, unit_id: str) -> None:
        """See `Witness.end`; nobody waits for it."""
        self._journal.end.remote(stage, unit_id)

    def turn(self) -> AbstractContextManager[None]:
        """See `Witness.turn`."""
        return turn(ray.get_runtime_context().get_node_id())


@contextmanager
def witness() -> Iterator[RayWitness]:
    """A witness for one chain, on the driver's node: no other node's loss takes it away."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(num_cpus=0, max_restarts=FOR_EVER, max_task_retries=FOR_EVER)(_RayJournal)
    journal: Any = remote.options(scheduling_strategy=here).remote()
    try:
        yield RayWitness(journal)
    finally:
        ray.kill(journal)


def outcomes(dataset: Dataset) -> Generator[Row, None, None]:
    """The rows of a pipeline as they come. An error of ours that a worker raised is raised as itself."""
    try:
        yield from dataset.iter_rows()
    except RayError as error:
        raise _ours(error) or error from error


def _ours(error: BaseException | None) -> AvsError | None:
    """The first error of ours in the chain of causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, AvsError):
            return error
        seen.add(id(error))
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return None
