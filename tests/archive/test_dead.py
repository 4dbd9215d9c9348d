"""Dead letters in a person's hands: choosing, retrying, exporting; and letters of another decoder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from avs_core import storage
from avs_core.archive.attempts import Attempts
from avs_core.archive.commit import ArchiveWriter
from avs_core.archive.dead import choose_letters, export_letters, file_now, forget_replaced, retry_letters
from avs_core.archive.layout import Software
from avs_core.archive.ledger import load_ledger
from avs_core.archive.read import DEAD_SCHEMA, dead_letters, read_letters
from avs_core.archive.schema import run_key
from avs_core.archive.verify import archive_digest, verify
from avs_core.clip import Unit, VideoRef
from avs_core.errors import InputError
from avs_core.pipelines.inputs import find_videos
from tests.archive import sample

OTHER = sample.video("other")
OLD, NEW = Software(code="1", decoder="pyav 1"), Software(code="1", decoder="pyav 2")


def unit(path: Path) -> Unit:
    path.write_bytes(b"x")
    return Unit(find_videos([str(path)])[0], 0, 5)


def signed(archive: str, software: Software) -> ArchiveWriter:
    return sample.opened(archive, software=software)


@pytest.fixture
def filled(archive: str, tmp_path: Path) -> tuple[str, dict[str, Unit]]:
    """An archive with three dead letters, of files that are there."""
    units = {name: unit(tmp_path / f"{name}.mp4") for name in ("a", "b", "c,d")}
    writer = sample.opened(archive)
    for one, error_class in zip(units.values(), ("timeout", "truncated", "timeout"), strict=True):
        writer.dead_letter(one, error_class, "why, exactly", "decode")
    return archive, units


def test_letters_are_chosen_by_class_by_file_and_by_unit(filled: tuple[str, dict[str, Unit]]) -> None:
    archive, units = filled
    assert len(choose_letters(archive)) == 3
    assert len(choose_letters(archive, classes=["timeout", "nan"])) == 2
    for video in (units["b"].video.uri, units["b"].unit_id):
        assert [letter.unit_id for letter in choose_letters(archive, video=video)] == [units["b"].unit_id]
    assert choose_letters(archive, classes=["nan"], video=units["b"].unit_id) == []
    with pytest.raises(InputError, match=r"worker_crash; oops is none"):
        choose_letters(archive, classes=["oops"])
    with pytest.raises(InputError, match=r"/v/other.mp4 has none"):
        choose_letters(archive, video="/v/other.mp4")


def test_a_letter_of_a_key_that_no_uri_may_hold_is_found_too(tmp_path: Path) -> None:
    odd = Unit(VideoRef("s3://bucket/clips/./x.mp4", 5, "etag-5"), 0, 5)
    sample.opened(archive := str(tmp_path / "archive")).dead_letter(odd, "unreadable", "why", "probe")
    (letter,) = choose_letters(archive, video=odd.video.uri)
    assert (letter.unit_id, file_now(letter)) == (odd.unit_id, "gone")


def test_a_letter_that_is_retried_is_gone_and_its_attempts_stay(filled: tuple[str, dict[str, Unit]]) -> None:
    archive, units = filled
    key = sample.opened(archive).run_key
    Attempts(archive, key).note(units["a"], "timeout", "decode")
    assert retry_letters(archive, choose_letters(archive, classes=["timeout"])) == 2
    assert [row["error_class"] for row in dead_letters(archive).to_pylist()] == ["truncated"]
    assert load_ledger(archive, key).dead == {units["b"].unit_id}
    assert Attempts(archive, key).suspect(units["a"].unit_id)


def test_attempts_and_their_number_in_letters_make_no_two_archives_differ(filled: tuple[str, dict[str, Unit]]) -> None:
    archive, units = filled
    before, writer = archive_digest(archive), sample.opened(archive)
    Attempts(archive, writer.run_key).note(units["a"], "timeout", "decode")
    retry_letters(archive, choose_letters(archive, video=units["a"].unit_id))
    assert archive_digest(archive) != before
    signed(archive, NEW).dead_letter(units["a"], "timeout", "why, exactly", "decode", attempts=2)
    assert archive_digest(archive) == before
    assert not [*verify(archive).problems, *verify(archive).notes]
    retry_letters(archive, choose_letters(archive, video=units["a"].unit_id))
    writer.dead_letter(units["a"], "truncated", "why, exactly", "decode")
    assert archive_digest(archive) != before


@pytest.mark.parametrize("suffix", ["txt", "csv", "parquet"])
def test_an_export_is_a_manifest_of_the_same_videos(
    suffix: str, filled: tuple[str, dict[str, Unit]], tmp_path: Path
) -> None:
    archive, units = filled
    out = str(tmp_path / "out" / f"dead.{suffix}")
    export_letters(read_letters(archive), out)
    assert {video.uri for video in find_videos([out])} == {one.video.uri for one in units.values()}


def test_an_export_holds_what_the_table_holds(filled: tuple[str, dict[str, Unit]], tmp_path: Path) -> None:
    archive, _ = filled
    letters, table = read_letters(archive), dead_letters(archive)
    export_letters(letters, str(tmp_path / "dead.parquet"))
    assert pq.read_table(tmp_path / "dead.parquet").equals(table)
    export_letters(letters, str(tmp_path / "dead.json"))
    assert json.loads((tmp_path / "dead.json").read_text()) == table.to_pylist()
    export_letters([], str(tmp_path / "none.parquet"))
    assert pq.read_schema(tmp_path / "none.parquet").equals(DEAD_SCHEMA)


def test_what_can_not_be_exported_is_refused(filled: tuple[str, dict[str, Unit]], tmp_path: Path) -> None:
    archive, _ = filled
    with pytest.raises(InputError, match=r"exported to \.csv"):
        export_letters(read_letters(archive), str(tmp_path / "dead.xlsx"))
    sample.opened(archive).dead_letter(unit(tmp_path / "two\nlines.mp4"), "timeout", "", "decode")
    with pytest.raises(InputError, match=r"export a \.csv"):
        export_letters(read_letters(archive), str(tmp_path / "dead.txt"))
    export_letters(read_letters(archive), str(tmp_path / "dead.csv"))
    assert len(find_videos([str(tmp_path / "dead.csv")])) == 4


def test_a_letter_knows_what_became_of_its_file(filled: tuple[str, dict[str, Unit]], tmp_path: Path) -> None:
    archive, units = filled
    (letter,) = choose_letters(archive, video=units["a"].unit_id)
    assert file_now(letter) == "unchanged"
    (tmp_path / "a.mp4").write_bytes(b"longer")
    assert file_now(letter) == "changed"
    shutil.move(tmp_path / "a.mp4", tmp_path / "elsewhere.mp4")
    assert file_now(letter) == "gone"


@pytest.mark.parametrize(("error_class", "again"), [("unreadable", True), ("timeout", True), ("nan", False)])
def test_another_decoder_looks_again_at_what_a_decoder_judged(archive: str, error_class: str, again: bool) -> None:
    writer, one = signed(archive, OLD), sample.units(sample.video("broken"))[0]
    writer.dead_letter(one, error_class, "why", "decode")
    ids = frozenset({one.unit_id})
    assert load_ledger(archive, writer.run_key).dead == ids
    assert load_ledger(archive, writer.run_key, OLD.decoder).dead == ids
    ledger = load_ledger(archive, writer.run_key, NEW.decoder)
    assert (ledger.dead, ledger.doubtful) == ((frozenset(), ids) if again else (ids, frozenset()))
    assert dead_letters(archive).num_rows == 1


def test_what_the_store_refused_is_asked_for_again_by_every_job(archive: str) -> None:
    writer, one = signed(archive, OLD), sample.units(sample.video("refused"))[0]
    writer.dead_letter(one, "denied", "403", "probe")
    ledger = load_ledger(archive, writer.run_key, OLD.decoder)
    assert (ledger.dead, ledger.doubtful) == (frozenset(), frozenset({one.unit_id}))
    assert load_ledger(archive, writer.run_key).dead == ledger.doubtful
    for error_class in ("truncated", "denied"):
        writer.dead_letter(one, error_class, "a second look", "probe")
        assert [row["error_class"] for row in dead_letters(archive).to_pylist()] == ["truncated"]


def test_the_letter_of_another_decoder_is_replaced_and_that_of_the_same_stays(archive: str) -> None:
    one = sample.units(sample.video("broken"))[0]
    for software, message in ((OLD, "first"), (OLD, "second"), (NEW, "third"), (NEW, "fourth")):
        signed(archive, software).dead_letter(one, "unreadable", message, "probe")
    (letter,) = dead_letters(archive).to_pylist()
    assert (letter["message"], letter["code_version"], letter["decoder"]) == ("third", "1", "pyav 2")


@pytest.mark.parametrize(("settled", "left"), [(2, 0), (1, 1)])
def test_the_letter_of_another_decoder_goes_once_its_video_is_settled_in_another_cut(
    archive: str, settled: int, left: int
) -> None:
    video = sample.video("misjudged")
    signed(archive, OLD).dead_letter(Unit(video, 0, 1), "unreadable", "no header", "probe")
    writer = signed(archive, NEW)
    doubtful = load_ledger(archive, writer.run_key, NEW.decoder).doubtful
    for unit in sample.units(video, 2)[:settled]:
        sample.commit(writer, unit)
    forget_replaced(archive, writer.run_key, doubtful)
    assert dead_letters(archive).num_rows == left


def test_a_letter_that_was_written_anew_is_not_forgotten(archive: str) -> None:
    done, dead = sample.units(sample.video("half"), 2)
    signed(archive, OLD).dead_letter(dead, "corrupt", "bad packet", "decode")
    writer = signed(archive, NEW)
    doubtful = load_ledger(archive, writer.run_key, NEW.decoder).doubtful
    sample.commit(writer, done)
    writer.dead_letter(dead, "corrupt", "bad packet", "decode")
    forget_replaced(archive, writer.run_key, doubtful)
    assert [row["decoder"] for row in dead_letters(archive).to_pylist()] == [NEW.decoder]


def test_a_letter_of_an_older_version_goes_once_a_newer_one_is_done_and_no_other_does(archive: str) -> None:
    writer = sample.opened(archive)
    (before,), (now,), (other,) = (sample.units(video) for video in (sample.video(), sample.video(version=2), OTHER))
    for unit in (before, other):
        writer.dead_letter(unit, "truncated", "it was listed while it was uploaded", "decode")
    sample.commit(writer, now)
    newer = sample.units(sample.video(version=3))[0]
    writer.dead_letter(newer, "truncated", "broken since", "decode")
    forget_replaced(archive, writer.run_key, frozenset())
    assert {letter.unit_id for letter in read_letters(archive)} == {other.unit_id, newer.unit_id}


def test_a_letter_that_goes_while_letters_are_read_is_left_out(
    filled: tuple[str, dict[str, Unit]], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, _ = filled
    first, *others = read_letters(archive)

    def read(uri: str, read: Callable[[str], bytes] = storage.read_bytes) -> bytes:
        if first.unit_id in uri:
            storage.delete(uri)
        return read(uri)

    monkeypatch.setattr(storage, "read_bytes", read)
    assert read_letters(archive) == others
    assert first.unit_id not in load_ledger(archive, run_key(sample.RECORD), "another decoder").dead
