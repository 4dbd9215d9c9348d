"""Files that are put back: an older copy, or the very one of before, is what readers see in the end."""

import threading
from dataclasses import replace

import pytest

from avs_core import storage
from avs_core.archive.compact import compact
from avs_core.archive.dead import choose_letters, forget_replaced, retry_letters
from avs_core.archive.gc import gc
from avs_core.archive.ledger import load_ledger
from avs_core.archive.read import videos
from avs_core.archive.schema import run_key
from avs_core.archive.touched import earlier_versions, record_touch
from avs_core.archive.verify import verify
from avs_core.archive.versions import as_versions, fingerprint_of_file
from avs_core.clip import MISSING_FINGERPRINT, VideoRef
from avs_core.pipelines.plan import State, make_plan, plan_found
from avs_core.pipelines.units import unprobed
from tests.archive import sample

KEY = run_key(sample.RECORD)
A = VideoRef("s3://videos/film.mp4", 7, "a-7", 1_000, content="aa" * 32)
B = VideoRef("s3://videos/film.mp4", 7, "b-7", 2_000, content="bb" * 32)


def night(archive: str, listed: VideoRef) -> State:
    """What a job would do with the file that is listed, and that done."""
    plan = plan_found([listed], archive, KEY)
    (video,), (state,) = plan.videos, plan.states
    if state.to_do:
        writer = sample.opened(archive)
        for unit in sample.units(video, 2):
            sample.commit(writer, unit)
    return state


def shown(archive: str) -> str:
    """The fingerprint of the file of which readers see the masks."""
    (fingerprint,) = videos(archive)["fingerprint"].to_pylist()
    return fingerprint_of_file(fingerprint)


def tidy(archive: str) -> None:
    """What a careful owner does every night."""
    compact(archive)
    gc(archive, older_than_s=0.0, now_s=4e9)


@pytest.mark.parametrize("tidied", [False, True])
def test_the_file_of_before_is_shown_again_however_often_it_comes_back(archive: str, tidied: bool) -> None:
    for number, file in enumerate([A, B, A, B, A]):
        listed = replace(file, modified_us=1_000 * (number + 1))
        assert night(archive, listed).to_do
        assert shown(archive) == file.fingerprint
        if tidied:
            tidy(archive)
        assert night(archive, listed) == State.DONE
        assert shown(archive) == file.fingerprint
    assert not verify(archive).problems


@pytest.mark.parametrize("files", [[B, A], [B, A, B, A, B]])
def test_an_older_copy_is_shown_though_a_newer_file_was_there(archive: str, files: list[VideoRef]) -> None:
    """As `cp -p` and `rsync -a` leave it: with the time of modification that it had."""
    for file in files:
        assert night(archive, file).to_do
        assert shown(archive) == file.fingerprint
        tidy(archive)
        assert night(archive, file) == State.DONE
        assert shown(archive) == file.fingerprint


def test_an_older_copy_that_is_broken_is_not_tried_every_night(archive: str) -> None:
    night(archive, B)
    (video,) = as_versions(archive, KEY, [A])
    sample.opened(archive).dead_letter(sample.units(video)[0], "unreadable", "no header", "probe")
    again = as_versions(archive, KEY, [A])
    assert make_plan(again, archive, KEY, load_ledger(archive, KEY)).states == [State.DEAD]


def touch(archive: str, listed: VideoRef) -> None:
    (video,) = as_versions(archive, KEY, [listed])
    record = earlier_versions(archive, KEY, load_ledger(archive, KEY), [video])[video.uri]
    record_touch(archive, KEY, video, record)


def test_a_touched_file_that_is_put_back_is_done_again_only_if_another_was_there_meanwhile(archive: str) -> None:
    night(archive, A)
    touch(archive, touched := replace(A, fingerprint="touched-7", modified_us=1_500))
    assert night(archive, touched) == State.DONE
    assert night(archive, A) == State.DONE
    night(archive, B)
    assert night(archive, back := replace(touched, modified_us=3_000)) == State.CHANGED
    assert shown(archive) == touched.fingerprint
    assert night(archive, back) == State.DONE


def test_an_older_copy_with_the_content_that_is_shown_is_touched_once(archive: str) -> None:
    night(archive, B)
    touch(archive, copy := replace(B, fingerprint="copy-7", modified_us=500))
    assert night(archive, copy) == State.DONE
    assert shown(archive) == B.fingerprint


def test_a_file_that_was_away_is_as_it_was_and_leaves_no_letter(archive: str) -> None:
    """A manifest that names it is looked up: it is missing, not another version of it that was put back."""
    assert night(archive, A) is State.NEW
    away = VideoRef(A.uri, 0, MISSING_FINGERPRINT)
    assert as_versions(archive, KEY, [away]) == [away]
    sample.opened(archive).dead_letter(unprobed(away), "denied", "it is gone", "probe")
    assert shown(archive) == A.fingerprint
    assert night(archive, A) is State.DONE
    forget_replaced(archive, KEY, frozenset())
    assert not choose_letters(archive)


def test_what_is_partly_dead_is_not_done_because_it_was_touched(archive: str) -> None:
    first, second = sample.units(A, 2)
    sample.commit(writer := sample.opened(archive), first)
    writer.dead_letter(second, "timeout", "slow disk", "decode")
    touched = replace(A, fingerprint="again-7", modified_us=5_000)
    ledger = load_ledger(archive, KEY)
    assert earlier_versions(archive, KEY, ledger, [touched]) == {}
    compact(archive)
    in_doubt = load_ledger(archive, KEY, "another decoder")
    assert in_doubt.doubtful
    assert earlier_versions(archive, KEY, in_doubt, [touched]) == {}, "whose dead part the new decoder may do"
    sample.commit(writer, second)
    assert earlier_versions(archive, KEY, load_ledger(archive, KEY), [touched])


def test_what_was_touched_is_looked_up_side_by_side(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    films = [replace(A, uri=f"s3://videos/{name}.mp4") for name in "ab"]
    for film in films:
        night(archive, film)
        touch(archive, replace(film, fingerprint="touched-7", modified_us=1_500))
    both, read = threading.Barrier(2), storage.read_bytes

    def together(uri: str) -> bytes:
        if "/_touched/" in uri:
            both.wait(30)
        return read(uri)

    monkeypatch.setattr(storage, "read_bytes", together)
    listed = [replace(film, fingerprint="touched-7", modified_us=1_500) for film in films]
    assert make_plan(as_versions(archive, KEY, listed), archive, KEY).states == [State.DONE, State.DONE]


def test_nothing_is_opened_where_nothing_was_put_back(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    night(archive, A)
    new = replace(B, uri="s3://videos/new.mp4")
    monkeypatch.setattr(storage, "read_bytes", lambda uri: pytest.fail(f"{uri} was read"))
    assert as_versions(archive, KEY, [A, new]) == [A, new]
    assert plan_found([A, new], archive, KEY).states == [State.DONE, State.NEW]
    assert as_versions(f"{archive}-of-nothing", KEY, [A]) == [A]


def test_the_object_of_before_is_shown_though_a_part_of_it_was_left_out_by_a_snapshot(archive: str) -> None:
    """On S3 it has its old etag and a new time: only its dead unit would be done, and readers would not get it."""
    first, second = sample.units(A, 2)
    sample.commit(writer := sample.opened(archive), first)
    writer.dead_letter(second, "timeout", "slow disk", "decode")
    assert night(archive, B) is State.CHANGED
    compact(archive)
    forget_replaced(archive, KEY, frozenset())
    again = replace(A, modified_us=9_000)
    assert night(archive, again).to_do
    assert shown(archive) == A.fingerprint
    assert night(archive, again) is State.DONE
    assert verify(archive).problems == ()


@pytest.mark.parametrize("dead", [0, 1])
def test_the_letter_of_what_is_shown_stays(dead: int, archive: str) -> None:
    """Its other unit was done after the object had been uploaded again, so that the letter is older than that."""
    night(archive, B)
    again = replace(A, modified_us=9_000)
    for unit in sample.units(again, 2):
        if unit.index != dead:
            sample.commit(sample.opened(archive), unit)
    letter = replace(sample.units(A, 2)[dead], video=A)
    sample.opened(archive).dead_letter(letter, "timeout", "slow disk", "decode")
    assert shown(archive) == A.fingerprint
    forget_replaced(archive, KEY, frozenset())
    assert shown(archive) == A.fingerprint
    assert choose_letters(archive)


def test_a_hole_of_a_merged_version_that_is_retried_does_not_show_the_version_before(archive: str) -> None:
    night(archive, A)
    first, second = sample.units(B, 2)
    sample.commit(writer := sample.opened(archive), first)
    writer.dead_letter(second, "timeout", "slow disk", "decode")
    compact(archive)
    assert shown(archive) == B.fingerprint
    retry_letters(archive, choose_letters(archive))
    again = replace(A, modified_us=9_000)
    assert night(archive, again).to_do  # it is not what readers see
    assert shown(archive) == A.fingerprint
    assert night(archive, again) is State.DONE
