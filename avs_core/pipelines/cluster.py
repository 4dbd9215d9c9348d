"""The Ray a job runs on: connect to it."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import ray
from ray.data import DataContext

from avs_core.errors import ClusterUnavailable, ConfigError

LOG = logging.getLogger(__name__)

STARTS = 3
"""A node gives itself 15 s to start its own helpers; on a busy machine that is not always enough."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A Ray to work on: the one at `address` or in RAY_ADDRESS, else one of our own that ends with the block.

    What Ray prints on the standard output meanwhile (of a killed worker, of a full node) goes to the standard error:
    a job's answer stands on the former alone. Whoever has a Ray already when he comes keeps his own ways.
    """
    if ray.is_initialized():
        _quieten()
        yield
        return
    _connect(address or os.environ.get("RAY_ADDRESS") or "local")
    _quieten()
    with redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray.shutdown()


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray Data's actor pools make the core complain of their own arguments at every start; the session's logs keep it.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    left = STARTS
    while left:
        try:
            with _core_silenced(), _handlers_kept():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
            return
        except SystemExit as told:
            if told.code != signal.SIGTERM:
                raise
            ray.shutdown()
            signal.raise_signal(signal.SIGTERM)  # now that the handler is ours again; it may let the job end in order
        except ValueError as error:
            raise ConfigError(f"a Ray address must be one, such as auto or host:6379; {address}: {error}") from error
        except ConnectionError as error:  # it may be away for a moment only
            raise ClusterUnavailable(
                f"a Ray address must name a running cluster; {address} does not answer: {error}"
            ) from error
        except Exception as error:  # Ray has no class for a node that does not come up
            ray.shutdown()
            left -= 1
            if not left:
                raise ClusterUnavailable(
                    f"Ray must start within its time; {address} did not, {STARTS} times: {error} Look at the "
                    f"machine's load and memory, then run the same command again"
                ) from error
            LOG.warning("Ray did not start within its time, it is tried again: %s", error)


@contextmanager
def _core_silenced() -> Iterator[None]:
    """Ray's C++ core announces its log level on the standard error itself; faults come as Python exceptions."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray answers SIGTERM itself, its Python by `sys.exit(15)` while it starts and its C++ core by aborting; a job has
    units to finish and a run to close.
    """
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if ours is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


def _quieten() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)


def warn_of_no_cpus(grow: bool) -> None:
    """Say that a job which does not ask for more gets next to nothing on a cluster whose nodes come when work waits."""
    if not grow and not ray.cluster_resources().get("CPU"):
        LOG.warning(
            "a job asks for what the cluster has when it starts, and it has no CPU: one decoder and one segmenter are "
            "all that it will get. On a cluster that scales itself give --grow, --decoders and --segmenters (--device "
            "cuda for GPUs)"
        )
