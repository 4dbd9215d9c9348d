"""An ear that hears beyond its second: the run's name tells it, every decoder is told, and no cut is heard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch

from avs_core.archive.schema import RunRecord, run_key
from avs_core.audio import Samples
from avs_core.errors import ConfigError
from avs_core.media.config import DecodeConfig
from avs_core.models.audio_encoders import BUILT_IN, AudioEncoder
from avs_core.models.bundle import Bundle, BundleConfig, load_bundle, save_bundle
from avs_core.pipelines.flows import UnitFlows, reach_of
from avs_core.pipelines.pools import Pool, Pools
from avs_core.pipelines.pyfunc import OUTPUTS, _load_pyfunc
from avs_core.pipelines.segment import run_record
from avs_core.pipelines.segment_config import SegmentConfig
from avs_core.pipelines.stages import never
from tests.media.recipes import BASE
from tests.tiny_bundle import tiny_instances

Hear = Callable[[float], Bundle]


class Ear(torch.nn.Module):
    """(N, n) samples → (N, 128): how loud each of 128 stretches is."""

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return samples.unflatten(1, (128, -1)).abs().mean(2) * 10


@pytest.fixture
def hear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hear:
    """A bundle, in the folder "wide", whose ear hears so many seconds."""
    tiny = load_bundle(tiny_instances(tmp_path / "tiny"))

    def made(around_s: float) -> Bundle:
        monkeypatch.setitem(BUILT_IN, "wide", AudioEncoder(Ear, 128, Samples(around_s)))
        config = BundleConfig(**(tiny.config.model_dump() | {"audio_encoder": "wide"}))
        save_bundle(tmp_path / "wide", config, tiny.net, Ear(), card="# Wide\n", categories=tiny.categories)
        return load_bundle(tmp_path / "wide")

    return made


def record_of(bundle: Bundle, rate: int = 1) -> RunRecord:
    return run_record(SegmentConfig(archive="a", rate=rate), bundle)


@pytest.mark.parametrize("model", ["tpavi-light", "instances-light"])
def test_runs_that_never_heard_a_cut_keep_their_names(model: str) -> None:
    bundle = load_bundle(model)
    told = [record_of(bundle, rate).preprocessing.get("reach") for rate in range(1, 61)]
    assert told[:16] == [None] * 16
    assert told[16:] == [[0, 0]] * 44, "their looks just before the next second did hear it"


def test_the_cutting_of_sound_names_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that is half done would go on with sound that is cut another way."""
    before = record_of(bundle := load_bundle("tpavi-light"))
    monkeypatch.setattr("avs_core.pipelines.segment.BLOCK_S", 20)
    assert run_key(record_of(bundle)) != run_key(before)


def test_how_far_an_ear_hears_names_the_run_though_no_weight_tells(hear: Hear) -> None:
    records = [record_of(hear(around_s)) for around_s in (0.5, 1.0, 2.0, 3.0, 10.0)]
    assert [one.preprocessing.get("reach") for one in records] == [
        *(None, None),
        *([around_s * 8_000] * 2 for around_s in (1, 2, 9)),
    ]
    assert len({run_key(record) for record in records}) == 4
    assert len({record.weights_sha256 for record in records}) == 1


def test_decoders_are_told_what_the_record_tells(hear: Hear) -> None:
    config, pools = SegmentConfig(archive="a", model="wide", rate=2), Pools(*[Pool(1, 1.0)] * 4)
    record = run_record(config, hear(3.0))
    told = UnitFlows(config, record, 64, never, pools)._decode.arguments["config"]
    assert isinstance(told, DecodeConfig)
    assert (told.rate, told.reach, told.sound_margins_s) == (2, (16_000, 16_000), (2, 1))
    assert reach_of(RunRecord(model="m", weights_sha256="0" * 64)) == (0, 0)
    with pytest.raises(ConfigError, match="two numbers of samples, got 7"):
        reach_of(RunRecord(model="m", weights_sha256="0" * 64, preprocessing={"reach": 7}))


def test_rows_do_not_depend_on_where_a_video_is_cut(hear: Hear, tmp_path: Path) -> None:
    noise = ("-c:a", "pcm_s16le")
    recipe = BASE.but("noise.mov", frames=175, sound="anoisesrc=d=7:r=44100:a=0.4:seed=7", sound_args=noise)
    videos = pd.DataFrame({"video_uri": [str(recipe.make(tmp_path))]})
    hear(4.0)
    rows: list[list[dict[str, Any]]] = []
    for unit_s in (5, 10):
        ask = _load_pyfunc(str(tmp_path / "wide"), {"unit_s": unit_s, "device": "cpu", "mask_size": [24, 32]})
        table = pa.Table.from_pandas(ask.predict(videos), schema=OUTPUTS, preserve_index=False)
        rows.append(table.sort_by([("object_id", "ascending"), ("frame_time_us", "ascending")]).to_pylist())
    assert len(rows[0]) > 7
    assert rows[0] == rows[1]
