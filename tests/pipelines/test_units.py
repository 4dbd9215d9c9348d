import pytest
from hypothesis import given
from hypothesis import strategies as st

from avs_core.clip import VideoRef
from avs_core.errors import ConfigError
from avs_core.pipelines.units import cut

VIDEO = VideoRef("/a.mp4", 1, "f")


@given(seconds=st.integers(1, 20_000), unit_s=st.integers(1, 200).map(lambda n: 5 * n))
def test_units_cover_every_second_once_and_never_split_a_window(seconds: int, unit_s: int) -> None:
    units = cut(VIDEO, seconds, unit_s)
    assert [second for unit in units for second in range(unit.start_s, unit.stop_s)] == list(range(seconds))
    assert all(unit.start_s % 5 == 0 and unit.stop_s - unit.start_s <= unit_s for unit in units)
    assert [unit.index for unit in units] == list(range(len(units)))
    assert len({unit.unit_id for unit in units}) == len(units)


@pytest.mark.parametrize("unit_s", [0, 4, 7, -5])
def test_a_unit_length_that_splits_windows_is_refused(unit_s: int) -> None:
    with pytest.raises(ConfigError, match="multiple of 5"):
        cut(VIDEO, 10, unit_s)
