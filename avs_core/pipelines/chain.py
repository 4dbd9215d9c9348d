"""Chains of Ray Data in which a row is the unit of scheduling and of retry, and errors keep their class."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.data import ActorPoolStrategy, Dataset
from ray.exceptions import RayError

from avs_core.errors import AvsError

MAX_RETRIES = 3
"""Restarts of an actor, and retries of one row after a crash. Ray's own default is for ever."""

Row = dict[str, Any]


def one_row_blocks(rows: Sequence[Row]) -> Dataset:
    """One row a block, so that a row is the unit of scheduling and of retry."""
    return ray.data.from_items(list(rows), override_num_blocks=len(rows))


def chain(
    dataset: Dataset, stage: type, arguments: dict[str, Any], compute: ActorPoolStrategy, **resources: float
) -> Dataset:
    """Append a stage: one row in, one row out, bounded retries."""
    wanted: dict[str, Any] = {name: value for name, value in resources.items() if value}
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to bound retries: without these two a crashing input is retried for ever.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        return dataset.map(
            stage,
            fn_constructor_kwargs=arguments,
            compute=compute,
            max_restarts=MAX_RETRIES,
            max_task_retries=MAX_RETRIES,
            **wanted,
        )


def outcomes(dataset: Dataset) -> Iterator[Row]:
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
