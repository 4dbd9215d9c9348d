import pytest

from avs_core import storage
from avs_core.archive.ledger import Ledger, load_ledger
from avs_core.archive.staging import VideoWriter
from tests.archive import sample


def test_there_is_nothing_where_there_is_no_archive(archive: str) -> None:
    assert load_ledger(archive, "r0") == Ledger()


def test_the_names_suffice(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = sample.opened(archive)
    one, two = sample.units(sample.video(), 2)
    dead = sample.units(sample.video("broken"))[0]
    sample.commit(writer, one)
    writer.dead_letter(two, "timeout", "", "decode")
    writer.dead_letter(dead, "unreadable", "", "probe")
    monkeypatch.delattr(storage, "read_bytes")
    expected = Ledger(frozenset({one.unit_id}), frozenset({two.unit_id, dead.unit_id}))
    assert load_ledger(archive, writer.run_key) == expected
    assert load_ledger(archive, "r0") == Ledger()


def test_a_unit_that_is_both_counts_as_committed(archive: str) -> None:
    writer = sample.opened(archive)
    unit = sample.units(sample.video())[0]
    writer.dead_letter(unit, "timeout", "", "decode")
    sample.commit(writer, unit)
    assert load_ledger(archive, writer.run_key) == Ledger(frozenset({unit.unit_id}))


def test_units_that_wait_for_others_are_told_apart(archive: str) -> None:
    writer = sample.opened(archive)
    units = sample.units(sample.video(), 3)
    VideoWriter(writer).finish(units[1], *sample.sightings(units[1]))
    assert load_ledger(archive, writer.run_key) == Ledger(staged=frozenset({units[1].unit_id}))
