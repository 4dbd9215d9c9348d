"""Every file of the corpus goes through the guard as in a job, and comes out as its case says."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from avs_core.clip import Clip
from avs_core.errors import DecodeTimeout, MediaError
from avs_core.media.decode import DecodeLimits, GuardedDecoder
from tests.media.clips import codes_of
from tests.media.conftest import unit_of
from tests.media.corpus import CASES, Case


@pytest.fixture(scope="module")
def decoder() -> Iterator[GuardedDecoder]:
    with GuardedDecoder(limits=DecodeLimits(wall_s=30.0, no_progress_s=3.0)) as decoder:
        yield decoder


def outcome(decoder: GuardedDecoder, path: Path) -> Clip | MediaError:
    """Look and decode, as the job does."""
    try:
        info = decoder.probe(str(path))
        return decoder.decode(unit_of(path, 0, info.seconds))
    except MediaError as fault:
        return fault


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name))
def test_a_file_becomes_what_its_case_says(decoder: GuardedDecoder, videos: Path, tmp_path: Path, case: Case) -> None:
    path = tmp_path / case.name
    case.make(videos, path)
    found = outcome(decoder, path)
    if isinstance(case.expected, type):
        assert type(found) is case.expected, str(found)
        assert str(path) in str(found)
        if case.expected is not DecodeTimeout:  # the second look meets a process that the first has used
            assert str(outcome(decoder, path)) == str(found)
        return
    assert isinstance(found, Clip), str(found)
    assert found.flags == case.expected
    if case.shows is not None:
        assert tuple(second[0] for second in codes_of(found.frames)) == case.shows


def test_the_corpus_is_large_and_each_file_has_its_own_name() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)
