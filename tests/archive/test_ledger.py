from pathlib import Path

import pytest

from avs_core import storage
from avs_core.archive.ledger import Ledger, VideoKeys, load_ledger, video_keys
from avs_core.archive.staging import VideoWriter
from avs_core.clip import Unit
from avs_core.errors import CorruptArchive, InputError
from tests.archive import sample


def test_there_is_nothing_where_there_is_no_archive(archive: str) -> None:
    assert load_ledger(archive, "r0") == Ledger()


def test_a_file_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="must be a folder"):
        load_ledger(str(tmp_path / "file"), "r0")


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


def test_a_file_of_another_kind_among_the_records_is_named(archive: str) -> None:
    writer = sample.opened(archive)
    sample.commit(writer, sample.units(sample.video())[0])
    for name in ("notes", "a-00000of00000"):
        storage.write_bytes(uri := storage.join(archive, f"_commits/run={writer.run_key}/{name}.json"), b"{}")
        with pytest.raises(CorruptArchive, match=rf"got {name}\.json"):
            video_keys(load_ledger(archive, writer.run_key))
        storage.delete(uri)


def test_a_unit_that_is_both_counts_as_committed(archive: str) -> None:
    writer = sample.opened(archive)
    unit = sample.units(sample.video())[0]
    writer.dead_letter(unit, "timeout", "", "decode")
    sample.commit(writer, unit)
    ids = frozenset({unit.unit_id})
    assert load_ledger(archive, writer.run_key) == Ledger(committed=ids, overruled=ids)


def test_units_that_wait_for_others_are_told_apart(archive: str) -> None:
    writer = sample.opened(archive)
    units = sample.units(sample.video(), 3)
    VideoWriter(writer).finish(units[1], *sample.sightings(units[1]))
    assert load_ledger(archive, writer.run_key) == Ledger(staged=frozenset({units[1].unit_id}))


def test_a_video_is_settled_when_one_cut_of_it_is_whole() -> None:
    of = sample.video()
    whole, halves, thirds = (sample.units(of, count) for count in (1, 2, 3))
    key, done = of.video_key, VideoKeys(done={of.video_key})

    def keys(*units: Unit, **others: frozenset[str]) -> VideoKeys:
        return video_keys(Ledger(frozenset(unit.unit_id for unit in units), **others))

    assert keys() == VideoKeys()
    assert keys(whole[0]) == keys(*thirds) == keys(whole[0], thirds[1]) == keys(*halves, thirds[0]) == done
    assert keys(*thirds[:2]) == keys(halves[0], *thirds[:2]) == VideoKeys(begun={key})
    assert keys(staged=frozenset({halves[0].unit_id})) == VideoKeys(begun={key})
    assert keys(whole[0], staged=frozenset({halves[0].unit_id})) == done
    assert keys(halves[0], dead=frozenset({halves[1].unit_id})) == VideoKeys(dead={key})
    assert keys(dead=frozenset({halves[1].unit_id})) == VideoKeys(begun={key})
    assert keys(touched=frozenset({key})) == done
