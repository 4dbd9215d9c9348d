"""Decoding and the model work side by side: while some units are segmented, others are decoded."""

import json
from pathlib import Path

import pytest

from tests.media.recipes import BASE
from tests.pipelines.test_suspects_on_ray import finish

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_a_unit_is_decoded_while_another_is_segmented(tmp_path: Path) -> None:
    """One decoder, one segmenter, one long video. Whole stages one after the other would leave no such pair."""
    inputs = tmp_path / "in"
    inputs.mkdir()
    BASE.but("long.mp4", frames=25 * 40).make(inputs)
    result = finish(inputs, tmp_path / "archive", "Watched", unit_s=5, leisurely=True)
    assert (result["segmented"], result["failed"]) == (1, 0)
    units = [json.loads(path.read_text()) for path in sorted(inputs.glob("*.times"))]
    assert len(units) == 8
    both = [
        (decoded, segmented)
        for decoded, one in enumerate(units)
        for segmented, other in enumerate(units)
        if one["decoded"][0] < other["segmented"][1] and other["segmented"][0] < one["decoded"][1]
    ]
    assert both, f"no unit was decoded while another was segmented: {units}"
