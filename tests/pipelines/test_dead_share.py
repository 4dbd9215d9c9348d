"""How many dead videos a job bears before it calls itself failed."""

from pathlib import Path

import pytest

from avs_core.archive.ledger import load_ledger
from avs_core.archive.staging import VideoWriter
from avs_core.clip import Unit, VideoRef
from avs_core.errors import TooManyDeadLetters
from avs_core.pipelines.plan import Plan, State
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import DEAD, OK, Row, new_row
from avs_core.pipelines.totals import JUDGED_EVERY, JUDGED_FROM, Totals, check_dead_share
from tests.archive import sample

TENTH = SegmentConfig(archive="/masks", max_dead_share=0.1)
FRESH = Plan([], [])
"""Of a job that does all of its videos itself."""


def row(number: int, status: str, part: int = 0, of: int = 1) -> Row:
    unit = Unit(VideoRef(f"/{number}.mp4", 1, "f"), 5 * part, 5 * part + 5, part, of)
    return new_row(unit) | {"status": status, "error_class": "corrupt" if status == DEAD else ""}


def totals(good: int, dead: int) -> Totals:
    counted = Totals()
    for number in range(good + dead):
        counted.add(row(number, DEAD if number < dead else OK))
    return counted


def test_the_limit_itself_is_borne_and_one_more_is_not() -> None:
    check_dead_share(10, 100, TENTH)
    with pytest.raises(TooManyDeadLetters, match=r"at most 10% .* 11 of 100 are: `avs dead /masks`"):
        check_dead_share(11, 100, TENTH)
    check_dead_share(100, 100, SegmentConfig(archive="/masks"))


def test_a_round_in_which_too_many_die_is_the_last_one() -> None:
    totals(good=JUDGED_FROM - 200, dead=200).check_dead(TENTH, FRESH)
    with pytest.raises(TooManyDeadLetters, match="201 of 2000"):
        totals(good=JUDGED_FROM - 201, dead=201).check_dead(TENTH, FRESH)


def test_a_few_videos_say_nothing_of_the_others() -> None:
    totals(good=0, dead=JUDGED_FROM - 1).check_dead(TENTH, FRESH)
    with pytest.raises(TooManyDeadLetters):
        totals(good=0, dead=JUDGED_FROM).check_dead(TENTH, FRESH)


def test_a_cut_video_that_died_of_one_part_is_one_dead_video() -> None:
    counted = totals(good=JUDGED_FROM - 1, dead=0)
    for part, status in enumerate((OK, DEAD, DEAD)):
        counted.add(row(JUDGED_FROM, status, part, of=3))
    counted.check_dead(SegmentConfig(archive="/masks", max_dead_share=1 / JUDGED_FROM), FRESH)
    with pytest.raises(TooManyDeadLetters, match="1 of 2000"):
        counted.check_dead(SegmentConfig(archive="/masks", max_dead_share=0.0), FRESH)


def test_a_job_that_asks_for_old_dead_ones_again_is_not_judged_by_them_alone() -> None:
    """As every night, where a store refuses a hundred of a hundred thousand videos."""
    video = VideoRef("/v.mp4", 1, "f")
    settled = Plan([video] * 20_000, [State.DONE] * 19_000 + [State.DEAD] * 1_000)
    totals(good=0, dead=JUDGED_FROM).check_dead(SegmentConfig(archive="/masks", max_dead_share=0.2), settled)
    with pytest.raises(TooManyDeadLetters, match="3000 of 22000"):
        totals(good=0, dead=JUDGED_FROM).check_dead(TENTH, settled)


def test_where_the_rest_cannot_help_any_more_a_round_need_not_come_to_its_end() -> None:
    """Of a broken decoder, which would bury all of the fifty thousand videos of a round."""
    counted = totals(good=0, dead=JUDGED_EVERY)
    counted.taken = 10 * JUDGED_EVERY
    counted.check_doomed(TENTH, FRESH)
    counted.taken -= 1
    with pytest.raises(TooManyDeadLetters, match="500 of 4999"):
        counted.check_doomed(TENTH, FRESH)


def test_the_look_within_a_round_does_not_count_a_million_videos_for_each_dead_one() -> None:
    class Counted(Plan):
        looks = 0

        @property
        def settled(self) -> int:
            Counted.looks += 1
            return 0

    plan, counted = Counted([], []), Totals()
    for number in range(2 * JUDGED_EVERY):
        counted.add(row(number, DEAD))
        counted.check_doomed(SegmentConfig(archive="/masks", max_dead_share=1.0), plan)
    assert Counted.looks == 2


def test_the_first_folder_may_be_broken() -> None:
    counted = totals(good=0, dead=JUDGED_EVERY)
    counted.taken = JUDGED_FROM - 1
    counted.check_doomed(TENTH, FRESH)


def test_a_video_that_all_call_done_and_that_is_not_whole_is_not_done(tmp_path: Path) -> None:
    """Its other half was staged by an earlier job and collected while this one worked."""
    writer = sample.opened(str(tmp_path / "archive"))
    half, whole, dead, failed, left = (sample.video(name) for name in ("half", "whole", "dead", "failed", "left"))
    VideoWriter(writer).finish(last := sample.units(half, 2)[1], *sample.sightings(last))
    sample.commit(writer, sample.units(whole)[0])
    writer.dead_letter(sample.units(dead)[0], "denied", "", "probe")
    counted = Totals(left={left.uri})
    counted.fail(failed, "the store was away")
    counted.fail_unfinished([half, whole, dead, failed, left], load_ledger(writer.uri, writer.run_key, "a decoder"))
    assert (counted.failed, counted.unfinished) == (2, {half.uri, failed.uri})
