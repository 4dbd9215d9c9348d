"""How large the rounds of a job are, and which rows they have."""

import pytest

from avs_core.archive.ledger import Ledger
from avs_core.clip import Unit, VideoRef
from avs_core.pipelines.rounds import FIRST_VIDEOS, GROWTH, MOST_UNITS, MOST_VIDEOS, Rounds, rows_of
from avs_core.pipelines.stages import OK, WHOLE, new_row
from avs_core.pipelines.units import cut

UNIT_S = 300
MOST_S = MOST_UNITS * UNIT_S
MILLION = [VideoRef("/v.mp4", 1, "f")] * 1_000_000


def sizes(videos: list[VideoRef], seconds: float, unit_s: int = UNIT_S) -> list[int]:
    """Of the rounds of a job whose videos take so many seconds each."""
    rounds, found = Rounds(videos, unit_s), []
    while taken := rounds.take():
        found.append(len(taken))
        assert len(rounds.rest) == len(videos) - sum(found)
        rounds.learn(len(taken), len(taken) * seconds)
    return found


def test_work_begins_soon_and_a_million_clips_are_a_few_rounds() -> None:
    found = sizes(MILLION, seconds=5.0)
    assert found[:3] == [FIRST_VIDEOS, FIRST_VIDEOS * GROWTH, FIRST_VIDEOS * GROWTH**2]
    assert (max(found), sum(found)) == (MOST_VIDEOS, len(MILLION))
    assert len(found) < 25


def test_long_videos_are_few_a_round() -> None:
    found = sizes(MILLION[:2000], seconds=36_000.0)
    assert found[0] == FIRST_VIDEOS
    assert set(found[1:-1]) == {MOST_S // 36_000}
    assert sum(found) == 2000
    assert set(sizes(MILLION[:600], seconds=2.0 * MOST_S)[1:]) == {1}


def test_films_after_clips_are_no_round_of_fifty_thousand() -> None:
    clips, films = [VideoRef("/clip.mp4", 5_000_000, "f")] * 50_000, [VideoRef("/film.mp4", 2 << 30, "f")] * 2_000
    rounds, seconds = Rounds([*clips, *films], UNIT_S), []
    while taken := rounds.take():
        seconds.append(sum(5.0 if video.uri == "/clip.mp4" else 7_200.0 for video in taken))
        rounds.learn(len(taken), seconds[-1])
    assert max(seconds) <= 5 * MOST_S  # a byte of a film shows more time than one of a clip, which nobody knows before
    assert len(seconds) < 40


def test_a_file_of_any_size_has_a_round() -> None:
    rounds = Rounds([VideoRef("/clip.mp4", 1_000, "f")] * FIRST_VIDEOS + [VideoRef("/v.mp4", 1 << 50, "f")] * 2, UNIT_S)
    rounds.take()
    rounds.learn(FIRST_VIDEOS, 5.0 * FIRST_VIDEOS)
    assert [len(rounds.take()) for _ in range(3)] == [1, 1, 0]


def test_nothing_to_do_in_a_round_tells_nothing_of_the_next() -> None:
    assert sizes(MILLION[:10_000], seconds=0.0) == [FIRST_VIDEOS, FIRST_VIDEOS * GROWTH, 5_500]


def test_films_of_which_nothing_is_to_be_done_do_not_come_one_by_one() -> None:
    clips = [VideoRef(f"/{number}.mp4", 1_000_000, "f") for number in range(FIRST_VIDEOS)]
    films = [VideoRef(f"/film{number}.mp4", 2 << 30, "f") for number in range(2_000)]
    rounds, taken = Rounds([*clips, *films], UNIT_S), list[int]()
    while videos := rounds.take():
        taken.append(len(videos))
        rounds.learn(len(videos), 600.0 * len(videos) if len(taken) == 1 else 0.0)
    assert sum(taken) == len(clips) + len(films)
    assert len(taken) < 6


def test_no_videos_no_round() -> None:
    assert sizes([], seconds=5.0) == []


def test_units_are_shorter_where_more_frames_are_looked_at_and_so_are_rounds() -> None:
    assert set(sizes(MILLION[:20_000], seconds=10.0, unit_s=10)[1:-1]) == {MOST_UNITS}


@pytest.mark.parametrize(("units", "found"), [(0, []), (1, [1]), (4000, [4000]), (4001, [4000, 1])])
def test_a_round_of_videos_that_are_longer_than_those_before_is_cut(units: int, found: list[int]) -> None:
    video = VideoRef("/long.mp4", 1, "f")
    rows = [new_row(Unit(video, UNIT_S * index, UNIT_S * (index + 1), index, units)) for index in range(units)]
    parts = list(Rounds([], UNIT_S).parts(rows))
    assert [len(part) for part in parts] == found
    assert [row for part in parts for row in part] == rows


@pytest.mark.parametrize(
    ("committed", "staged", "dead", "found"),
    [
        ((), (), (), [(0, OK), (1, OK), (2, OK)]),
        ((0,), (2,), (), [(1, OK)]),
        ((0,), (1, 2), (), [(2, WHOLE)]),  # the publisher died between two commits
        ((), (0, 1, 2), (), [(2, WHOLE)]),  # or before the first
        ((), (0, 1), (2,), [(2, WHOLE)]),
    ],
)
def test_where_nothing_is_missing_the_video_is_to_be_published(
    committed: tuple[int, ...], staged: tuple[int, ...], dead: tuple[int, ...], found: list[tuple[int, str]]
) -> None:
    units = cut(VideoRef("/v.mp4", 1, "f"), 15, 5)
    names = [frozenset(units[index].unit_id for index in places) for places in (committed, staged, dead)]
    rows = rows_of(units, Ledger(committed=names[0], staged=names[1], dead=names[2]))
    assert [(int(row["unit_id"].partition("-")[2][:5]), row["status"]) for row in rows] == found
