"""Pickled log-mels: every honest form is read, nothing that is pickled is run."""

import contextlib
import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avs_core.datasets.avsbench.log_mels import MOST_BYTES, read_log_mel
from avs_core.errors import DataError

LOG_MEL = torch.randn(5, 1, 96, 64, generator=torch.Generator().manual_seed(0))


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


HONEST: dict[str, Callable[[], bytes]] = {
    **{f"tensor, protocol {p}": lambda p=p: pickle.dumps(LOG_MEL, p) for p in (2, 3, 4, 5)},
    "with a gradient": lambda: pickle.dumps(LOG_MEL.clone().requires_grad_()),
    "parameter": lambda: pickle.dumps(torch.nn.Parameter(LOG_MEL)),
    "double": lambda: pickle.dumps(LOG_MEL.double()),
    "a view": lambda: pickle.dumps(torch.cat([LOG_MEL, LOG_MEL])[5:]),
    "transposed": lambda: pickle.dumps(LOG_MEL.transpose(2, 3).contiguous().transpose(2, 3)),
    "torch.save": lambda: saved(LOG_MEL),
    "torch.save, before 1.6": lambda: saved(LOG_MEL, _use_new_zipfile_serialization=False),
    **{f"array, protocol {p}": lambda p=p: pickle.dumps(LOG_MEL.numpy(), p) for p in (0, 2, 4, 5)},
    "Fortran array": lambda: pickle.dumps(np.asfortranarray(LOG_MEL.numpy()), 4),
    "Fortran array, protocol 5": lambda: pickle.dumps(np.asfortranarray(LOG_MEL.numpy()), 5),
}


@pytest.mark.parametrize("form", HONEST)
def test_honest_pickles_are_read(form: str) -> None:
    found = read_log_mel(HONEST[form](), "a.pkl", 5)
    assert found.dtype == np.float32
    assert np.array_equal(found, LOG_MEL.numpy())


def test_protocol_2_names_of_old_numpy_are_known() -> None:
    old = pickle.dumps(LOG_MEL.numpy(), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert np.array_equal(read_log_mel(old, "a.pkl", 5), LOG_MEL.numpy())


class Bomb:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def nested(bomb: Bomb) -> bytes:
    """A tensor whose storage is a bomb: torch's own `_load_from_bytes` would set it off."""
    return pickle.dumps(Bomb(torch.storage._load_from_bytes, saved(bomb, _use_new_zipfile_serialization=False)))


@pytest.mark.parametrize(
    "wrap",
    [
        pickle.dumps,
        lambda bomb: pickle.dumps(bomb, 0),
        lambda bomb: pickle.dumps(OrderedDict(a=bomb)),
        lambda bomb: pickle.dumps([LOG_MEL, bomb]),
        lambda bomb: pickle.dumps(np.array([bomb], dtype=object)),
        saved,
        lambda bomb: saved(bomb, _use_new_zipfile_serialization=False),
        nested,
    ],
    ids=["plain", "protocol 0", "in a dict", "after a tensor", "in an array", "torch.save", "older", "in a storage"],
)
def test_bombs_do_not_go_off(wrap: Callable[[Bomb], bytes], tmp_path: Path) -> None:
    mark = tmp_path / "gone-off"
    data = wrap(Bomb(os.mkdir, str(mark)))
    with pytest.raises(DataError, match=r"audio/a\.pkl"):
        read_log_mel(data, "audio/a.pkl", 5)
    assert not mark.exists()


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    """That the test above tests something."""
    pickle.loads(nested(Bomb(os.mkdir, str(tmp_path / "gone-off"))))  # noqa: S301  # our own, and harmless
    assert (tmp_path / "gone-off").exists()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (pickle.dumps(Bomb(eval, "1")), "builtins.eval"),
        (pickle.dumps(Bomb(os.system, "true")), "system"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", "_rebuild_tensor_v2.__globals__"),
        (b"ctorch\nload\n.", "torch.load"),
    ],
)
def test_the_refused_name_is_told(data: bytes, name: str) -> None:
    with pytest.raises(DataError, match=f"a.pkl wants to call .*{name}, which was not done"):
        read_log_mel(data, "a.pkl", 5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (LOG_MEL[:4], r"\(5, 1, 96, 64\), a.pkl has \(4, 1, 96, 64\)"),
        (LOG_MEL[:, 0], "has the shape"),
        (LOG_MEL.numpy().transpose(0, 1, 3, 2), "has the shape"),
        (torch.full((5, 1, 96, 64), float("nan")), "finite"),
        (np.zeros((5, 1, 96, 64), np.int32), "floating-point"),
        ({"a": LOG_MEL}, "one tensor or array, it holds a dict"),
        ([1, 2], "holds a list"),
    ],
)
def test_other_contents_are_refused(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_log_mel(pickle.dumps(value), "a.pkl", 5)


def test_a_tensor_must_lie_within_its_storage() -> None:
    storage = LOG_MEL.untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    beyond = Bomb(torch._utils._rebuild_tensor_v2, typed, 1, (5, 1, 96, 64), (6144, 6144, 64, 1), False, OrderedDict())
    with pytest.raises(DataError, match="must be a pickled tensor"):
        read_log_mel(pickle.dumps(beyond), "a.pkl", 5)


def test_huge_files_are_refused() -> None:
    with pytest.raises(DataError, match="at most"):
        read_log_mel(bytes(MOST_BYTES + 1), "a.pkl", 5)


@settings(max_examples=25)
@given(st.integers(0, 2000))
def test_cut_off_files_are_refused(length: int) -> None:
    for data in (pickle.dumps(LOG_MEL), saved(LOG_MEL), pickle.dumps(LOG_MEL.numpy())):
        with pytest.raises(DataError):
            read_log_mel(data[: length % len(data)], "a.pkl", 5)


# torch's own reader warns of a damaged protocol number before it refuses the rest
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@settings(max_examples=50)
@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_wrong_byte_gives_a_tensor_or_a_clear_error(place: int, value: int) -> None:
    data = bytearray(pickle.dumps(LOG_MEL))
    data[place] = value
    with contextlib.suppress(DataError):
        assert read_log_mel(bytes(data), "a.pkl", 5).shape == (5, 1, 96, 64)
