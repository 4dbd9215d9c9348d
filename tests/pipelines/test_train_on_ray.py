"""Which faults of workers are worth another try, and what the user is told; without a Ray."""

import pytest
import ray.train
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from avs_core.errors import DataError, StorageError, TrainingError
from avs_core.pipelines.train_on_ray import StopAtFaults, told


def wrapped(error: Exception) -> UserExceptionWithTraceback:
    return UserExceptionWithTraceback(error, "traceback")


@pytest.mark.parametrize("fault", [DataError("a clip is broken"), TrainingError("nan"), TypeError("a bug")])
def test_what_would_only_repeat_ends_the_training_even_beside_a_lost_connection(fault: Exception) -> None:
    lost = wrapped(RuntimeError("Connection closed by peer"))
    with pytest.raises(type(fault), match=str(fault)):
        StopAtFaults().after_exception(None, {0: lost, 1: wrapped(fault)})


@pytest.mark.parametrize("fault", [StorageError("away"), OSError("no space"), RuntimeError("closed"), ActorDiedError()])
def test_what_may_pass_is_tried_again(fault: Exception) -> None:
    StopAtFaults().after_exception(None, {0: wrapped(fault) if not isinstance(fault, ActorDiedError) else fault})


def test_the_user_is_told_the_fault_itself() -> None:
    fault = DataError("a clip is broken")
    assert told(ray.train.ControllerError(fault)) is fault
    store = StorageError("no space left")
    assert told(ray.train.WorkerGroupError("…", {0: wrapped(RuntimeError("closed")), 1: wrapped(store)})) is store


def test_workers_that_keep_dying_are_told_with_the_way_on() -> None:
    error = told(ray.train.WorkerGroupError("rank 1 died", {1: ActorDiedError()}))
    assert isinstance(error, TrainingError)
    assert "rank 1 died" in str(error)
    assert "goes on from there" in str(error)
