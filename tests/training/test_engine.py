"""Which device a process takes, and what is said where it can't have one."""

import pytest
import torch

from avs_core.errors import ConfigError
from avs_core.training.engine import Alone, Engine, pick_device, started_by_torchrun, torchrun


def test_alone_is_an_engine_that_changes_nothing() -> None:
    engine, values, model = Alone("cpu"), torch.tensor([1.0, 2.0]), torch.nn.Linear(1, 1)
    assert isinstance(engine, Engine)
    assert engine.total(values) is values
    assert engine.wrap(model) is model
    assert engine.from_first(7) == 7


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="--device cpu or auto"):
        pick_device("cuda")
    with pytest.raises(ConfigError, match="got tpu"):
        pick_device("tpu")


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device("auto", rank) for rank in (0, 1)] == [torch.device("cuda", 0), torch.device("cuda", 1)]


def test_the_engine_torchrun_without_torchrun_says_how_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert not started_by_torchrun()
    with pytest.raises(ConfigError, match="torchrun --nproc-per-node"), torchrun("cpu"):
        pass
