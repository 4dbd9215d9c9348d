"""Packs against their rules, on random lists of units."""

from hypothesis import given
from hypothesis import strategies as st

from avs_core.clip import Unit, VideoRef
from avs_core.pipelines.packs import MOST_ROWS, PACKS_A_WORKER, one_by_one, pack
from avs_core.pipelines.stages import DEAD, Row, new_row


def rows(seconds: list[int]) -> list[Row]:
    return [new_row(Unit(VideoRef(f"/{place}.mp4", 1, "f"), 0, length)) for place, length in enumerate(seconds)]


def length(row: Row) -> int:
    return int(row["unit"].partition('"stop_s": ')[2].partition(",")[0])


@given(seconds=st.lists(st.integers(1, 300), max_size=200), most_s=st.integers(5, 300), workers=st.integers(1, 8))
def test_packs_hold_every_row_in_order_and_no_more_than_a_unit(seconds: list[int], most_s: int, workers: int) -> None:
    listed = rows(seconds)
    packs = list(pack(listed, most_s, workers))
    assert [row for packed in packs for row in packed] == listed
    assert all(packs)
    for packed in packs:
        assert len(packed) == 1 or sum(map(length, packed)) <= most_s
        assert len(packed) <= MOST_ROWS
    assert len(packs) >= min(len(listed), PACKS_A_WORKER * workers)


def test_a_thousand_short_clips_are_few_packs_and_long_units_stay_alone() -> None:
    assert len(list(pack(rows([5] * 960), 300, 4))) == 16
    assert len(list(pack(rows([5] * 10_000), 300, 4))) == 167
    assert [len(packed) for packed in pack(rows([300] * 40), 300, 1)] == [1] * 40


def test_what_carries_no_video_counts_for_nothing() -> None:
    dead = [row | {"status": DEAD} for row in rows([300] * 40)]
    assert [len(packed) for packed in pack(dead, 300, 1)] == [10] * 4


def test_alone_is_one_by_one() -> None:
    assert [len(packed) for packed in one_by_one(rows([1, 2, 3]))] == [1, 1, 1]
