"""The outbox against a server that is slow, away, back again, or of another opinion."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from avs_core.errors import ConfigError, NotApplied, OutcomeUnknown
from avs_core.tracking.outbox import Entry, Metrics, Outbox, Params, Patience, Tags

QUICK = Patience(capacity=10, batch=3, pause_s=0.02, close_s=5.0, close_away_s=0.3)


def metrics(step: int) -> Metrics:
    return Metrics({"step": float(step)}, 0, step)


class Server:
    """Keeps what it is sent, and fails as it is told."""

    def __init__(self, *faults: Exception | None) -> None:
        self.got: list[Entry] = []
        self.sizes: list[int] = []
        self.faults = list(faults)
        self.open = threading.Event()
        self.open.set()

    def __call__(self, entries: Sequence[Entry]) -> None:
        assert self.open.wait(30)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.got += entries
        self.sizes.append(len(entries))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 5 s"
        time.sleep(0.005)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_entries_arrive_in_order_and_metrics_travel_together(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.open.clear()
    outbox = Outbox(server, "server", QUICK)
    sent = [Params({"a": "1"}), *map(metrics, range(7)), Tags({"b": "2"})]
    for entry in sent:
        outbox.put(entry)
    server.open.set()
    assert outbox.close() == 0
    assert server.got == sent
    assert server.sizes == [1, 3, 3, 1, 1]
    assert not warnings(caplog)


def test_what_a_server_missed_arrives_when_it_is_back_after_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(*[OutcomeUnknown("no http://me:hunter22@host")] * 3, None, OutcomeUnknown("again"))
    outbox = Outbox(server, "http://host", QUICK)
    sent = [Params({"a": "1"}), metrics(1), metrics(2), Tags({})]
    for entry in sent:
        outbox.put(entry)
    until(lambda: len(server.got) == len(sent))
    assert outbox.close() == 0
    assert server.got == sent
    (warning,) = warnings(caplog)
    assert "http://host" in warning
    assert "hunter22" not in caplog.text


def test_a_server_that_never_answers_costs_little_and_the_loss_is_told(caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(Server(*[OutcomeUnknown("refused")] * 1000), "server", QUICK)
    for step in range(5):
        outbox.put(metrics(step))
    until(lambda: bool(caplog.records))
    started = time.monotonic()
    assert outbox.close() == 5
    assert time.monotonic() - started < 2
    away, lost = warnings(caplog)
    assert "the job goes on" in away
    assert lost.startswith("5 entries")


def test_a_call_that_hangs_is_left_behind() -> None:
    server = Server()
    server.open.clear()
    outbox = Outbox(server, "server", Patience(close_s=0.2))
    outbox.put(metrics(1))
    started = time.monotonic()
    assert outbox.close() == 1
    assert time.monotonic() - started < 2
    server.open.set()


def test_a_dropped_connection_at_the_end_is_tried_once_more() -> None:
    server = Server(OutcomeUnknown("connection reset"))
    server.open.clear()
    outbox = Outbox(server, "server", QUICK)
    outbox.put(metrics(1))
    threading.Timer(0.1, server.open.set).start()
    assert outbox.close() == 0
    assert server.got == [metrics(1)]


def test_what_is_refused_is_lost_and_the_rest_arrives(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(NotApplied("changed param"), None, NotApplied("too long"))
    outbox = Outbox(server, "server", QUICK)
    for entry in (Params({"a": "1"}), Tags({}), Params({"b": "2"}), metrics(1)):
        outbox.put(entry)
    assert outbox.close() == 2
    assert server.got == [Tags({}), metrics(1)]
    assert len([text for text in warnings(caplog) if "refuses" in text]) == 1


def test_when_it_is_full_the_oldest_metrics_give_way() -> None:
    server = Server()
    server.open.clear()
    outbox = Outbox(server, "server", QUICK)
    outbox.put(Tags({}))
    until(lambda: len(outbox._flying) == 1)
    for entry in (Params({"a": "1"}), *map(metrics, range(12))):
        outbox.put(entry)
    server.open.set()
    assert outbox.close() == 3
    assert server.got == [Tags({}), Params({"a": "1"}), *map(metrics, range(3, 12))]


def test_what_comes_after_the_end_is_counted() -> None:
    outbox = Outbox(Server(), "server", QUICK)
    assert outbox.close() == 0
    outbox.put(metrics(1))
    assert outbox.dropped == 1


def test_limits_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="positive"):
        Patience(capacity=0)
