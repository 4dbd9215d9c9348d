"""Which frames are looked at, against the published formula and a naive loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avs_core.errors import ConfigError
from avs_core.media.sampling import choose_frames, phases, seconds_of, sound_margins, to_us, wanted_times


def test_one_look_a_second_is_the_published_one() -> None:
    assert phases(1) == (0.9375,)
    assert wanted_times(3, 5, 1).tolist() == [[3.9375], [4.9375]]


@given(st.integers(1, 60))
def test_phases_are_even_and_hold_the_published_one(rate: int) -> None:
    found = phases(rate)
    assert len(found) == rate
    assert list(found) == sorted(found)
    assert all(0 <= phase < 1 for phase in found)
    assert 0.9375 in found
    np.testing.assert_allclose(np.diff(found), 1 / rate)


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_below_one_is_refused(rate: int) -> None:
    with pytest.raises(ConfigError, match="rate"):
        phases(rate)


@given(st.integers(1, 60), st.integers(0, 100_000), st.integers(0, 100_000))
def test_margins_hold_all_that_any_phase_hears(rate: int, before: int, after: int) -> None:
    """Counted in whole seconds, and no second more than the earliest and the latest phase need."""
    starts = [round((phase - 0.9375) * 16_000) for phase in phases(rate)]
    first, last = min(starts) - before, max(starts) + 16_000 + after
    earlier, later = sound_margins(rate, (before, after))
    assert -earlier * 16_000 <= first < (1 - earlier) * 16_000
    assert later * 16_000 < last <= (1 + later) * 16_000


def test_one_second_ears_hear_what_they_always_did_up_to_16_looks_a_second() -> None:
    assert [sound_margins(rate) for rate in range(1, 17)] == [(0, 0)] + [(1, 0)] * 15
    assert {sound_margins(rate) for rate in range(17, 61)} == {(1, 1)}


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="start_s < stop_s"):
        wanted_times(5, 5, 1)


@pytest.mark.parametrize(
    ("duration", "seconds"), [(0.0, 1), (0.04, 1), (1.49, 1), (1.5, 2), (2.5, 3), (5.0, 5), (5.49, 5)]
)
def test_durations_round_half_up_to_at_least_one(duration: float, seconds: int) -> None:
    assert seconds_of(duration) == seconds


@pytest.mark.parametrize("fps", [8, 16, 24, 25, 30, 50, 60])
def test_at_a_constant_rate_the_published_index_is_chosen(fps: int) -> None:
    """int(l·fps + 15/16·fps), past the end the last."""
    pts = to_us(np.arange(5 * fps) / fps)
    chosen = choose_frames(pts, to_us(wanted_times(0, 6, 1).reshape(-1)))
    assert chosen.tolist() == [min(int(second * fps + 15 / 16 * fps), 5 * fps - 1) for second in range(6)]


@given(
    st.lists(st.integers(-1_000, 10_000_000), min_size=1, max_size=40, unique=True).map(sorted),
    st.lists(st.integers(-5_000, 12_000_000), min_size=1, max_size=20),
)
def test_the_frame_shown_is_the_last_that_has_begun(pts: list[int], wanted: list[int]) -> None:
    chosen = choose_frames(np.array(pts, dtype=np.int64), np.array(wanted, dtype=np.int64))
    for time, index in zip(wanted, chosen.tolist(), strict=True):
        begun = [i for i, start in enumerate(pts) if start <= time]
        assert index == (begun[-1] if begun else 0)


def test_no_frames_is_an_error() -> None:
    with pytest.raises(ValueError, match="no frame"):
        choose_frames(np.array([], dtype=np.int64), np.array([0], dtype=np.int64))
