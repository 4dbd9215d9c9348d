"""What the built-in bundle is, and what it says of the demo clips: the same picture under another sound."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from avs_core.models.bundle import BUILTIN, load_bundle
from avs_core.pipelines.pyfunc import _load_pyfunc
from avs_core.pipelines.segment_config import DEFAULT_MODEL
from avs_core.recipes import INSTANCES, find_recipe

FITTED = ("categories", "temperature", "known", "weighing", "activity")
"""What training finds out."""


def test_it_is_what_its_recipe_makes_and_small() -> None:
    bundle = load_bundle(DEFAULT_MODEL)
    assert find_recipe(DEFAULT_MODEL) is INSTANCES
    net = bundle.config.instance_aware
    assert net is not None
    assert net.model_dump(exclude=set(FITTED)) == INSTANCES.net.model_dump(exclude=set(FITTED))
    assert (net.categories, net.activity, net.weighing is None) == (len(bundle.categories), True, False)
    assert bundle.config.calibration is not None
    assert (bundle.config.size, bundle.config.window_s) == (INSTANCES.bundle_size, INSTANCES.window_s)
    assert sum(file.stat().st_size for file in (BUILTIN / DEFAULT_MODEL).iterdir()) <= 25_000_000


@pytest.fixture(scope="module")
def said(demo_clips: list[Path]) -> pd.DataFrame:
    """The rows of some demo clips; `clip` is the name of the file."""
    wanted = {"swap-dog", "swap-guitar", "silent-giant", "silence"}
    clips = [str(clip) for clip in demo_clips if clip.stem in wanted]
    settings: dict[str, Any] = {"mask_size": [90, 160], "device": "cpu"}
    model = _load_pyfunc(str(BUILTIN / DEFAULT_MODEL), settings)
    rows = model.predict(pd.DataFrame({"video_uri": clips}))
    return rows.assign(clip=[Path(uri).stem for uri in rows["video_uri"]])


@pytest.mark.parametrize("clip", ["swap-dog", "swap-guitar", "silent-giant"])
def test_what_sounds_most_is_what_sounds(said: pd.DataFrame, demo_clips: list[Path], clip: str) -> None:
    truth = json.loads((demo_clips[0].parent / "truth.json").read_text())[clip]["objects"]
    # an electric guitar may be taken for an acoustic one, and not for the dog beside it
    heard = {one["category"].split("_")[0] for one in truth if any(one["sounding"])}
    rows = said[(said["clip"] == clip) & said["sounding"] & (said["object_id"] > 0)]
    assert rows["category"].value_counts().index[0].split("_")[0] in heard


def test_what_is_lit_has_an_object(said: pd.DataFrame) -> None:
    at = ["clip", "frame_time_us"]
    lit = {tuple(row) for row in said[said["object_id"] == 0][at].to_numpy()}
    told = {tuple(row) for row in said[(said["object_id"] > 0) & said["sounding"]][at].to_numpy()}
    assert lit
    assert lit == told


def test_silence_lights_nothing(said: pd.DataFrame) -> None:
    assert not said[said["clip"] == "silence"]["sounding"].any()
