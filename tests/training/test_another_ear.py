"""An audio encoder of another package: the one that docs/training.md shows, installed, trained with, and left out."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avs_core.audio import LOG_MEL, FrontEnd, Samples
from avs_core.datasets.labelled import ClipRef, LabelledClip, heard_by
from avs_core.datasets.sources import Sources
from avs_core.errors import BundleError, ConfigError, DataError
from avs_core.evaluation.examine import evaluate_set
from avs_core.evaluation.predict import bundle_candidate
from avs_core.models.audio_encoders import AudioEncoder, find_audio_encoder
from avs_core.models.bundle import load_bundle
from avs_core.tracking import NullRun
from avs_core.training.engine import Alone
from avs_core.training.materials import Materials
from avs_core.training.train import train
from tests.training.test_instances import RECIPE

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"
ANSWER = """
import json, sys, numpy as np
from avs_core.clip import Clip
from avs_core.models.bundle import load_bundle
from avs_core.models.segmenter import open_segmenter
draw, size, place = np.random.default_rng(0), 64, np.arange(3)[:, None]
frames, wave = draw.integers(0, 255, (3, 1, size, size, 3), np.uint8), draw.uniform(-1, 1, 48000).astype(np.float32)
clip = Clip(frames, place, place * 1000000, wave, 0.0, size, size, 2)
print(json.dumps([[(one.category, one.audio_score) for one in frame.masks if one.object_id]
                  for frame in open_segmenter(load_bundle(sys.argv[1]), "cpu").segment(clip, 0)]))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder into which the package of the document is installed."""
    code, entry = (re.search(rf"```{kind}\n(.*?)```", _section(), re.DOTALL) for kind in ("python", "toml"))
    assert code is not None
    assert entry is not None
    folder = tmp_path / "site"
    info = folder / "my_ears-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "my_ears.py").write_text(code[1])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-ears\nVersion: 1.0\n")
    named = re.search(r'my_ear = "(.*)"', entry[1])
    assert named is not None
    (info / "entry_points.txt").write_text(f"[avs_core.audio_encoders]\nmy_ear = {named[1]}\nbroken = my_ears:Ear\n")
    return folder


def _section() -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return text[text.index("### Another ear") :]


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(site))
    return site


def test_it_is_trained_with_and_answers_only_where_its_package_is(
    installed: Path, tiny_sources: Sources, tmp_path: Path
) -> None:
    weights, last = None, None
    for job in RECIPE.jobs(Materials(sources=tiny_sources, workers=0, ear="my_ear")):
        last = train(job, Alone("cpu"), str(tmp_path / "run"), NullRun(), tmp_path, weights)
        weights = last.weights
    assert last is not None
    assert last.left is not None
    bundle = load_bundle(last.left)
    assert (bundle.config.audio_encoder, bundle.config.net.audio_channels) == ("my_ear", 24)
    own = find_audio_encoder("my_ear")
    assert own.pretrain is not None
    own.pretrain(fresh := own.kind())
    kept = bundle.audio_encoder.state_dict()["bands.weight"]
    assert torch.equal(fresh.state_dict()["bands.weight"].half().float(), kept), "what comes trained stays as it is"
    assert "my_ear's own weights, frozen" in (Path(last.left) / "card.md").read_text()

    for path, works in ((str(installed), True), ("", False)):
        asked = subprocess.run(
            [sys.executable, "-c", ANSWER, str(last.left)],
            env={"PYTHONPATH": f"{path}:{DOCUMENT.parents[1]}", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if works:
            assert asked.returncode == 0, asked.stderr
            assert len(json.loads(asked.stdout)) == 3
        else:
            assert "got my_ear: install the package that offers it" in asked.stderr


def test_an_evaluation_makes_all_other_sounds_through_its_front_end(
    installed: Path, tiny_sources: Sources, tmp_path: Path
) -> None:
    from avs_core.datasets.composed import ComposedSet

    (job,) = replace(RECIPE, net=RECIPE.net.model_copy(update={"composition": "all"})).jobs(
        Materials(sources=tiny_sources, workers=0, ear="my_ear")
    )
    done = train(job, Alone("cpu"), str(tmp_path / "run"), NullRun(), tmp_path)
    candidate = bundle_candidate(load_bundle(str(done.left)), "cpu")
    assert candidate.front_end == Samples(1.0)
    report = evaluate_set(candidate, ComposedSet(tiny_sources, {"test": 2}, seconds=2), "test")
    assert report.listening is not None
    assert {"silence", "white", "pink", "foreign"} - set(report.unanswered) == {"silence", "white", "pink", "foreign"}


def test_clips_without_a_waveform_are_refused_by_name() -> None:
    class LogMelsAlone:
        name, setting, categories, version = "AVSBench", "ms3", (), "v1"

        def splits(self) -> tuple[str, ...]:
            return ("test",)

        def clips(self, split: str) -> tuple[ClipRef, ...]:
            return (ClipRef("a_1", "ms3", split, "a", 2, (0, 1)),)

        def load(self, ref: ClipRef, size: int, alignment: str = "official") -> LabelledClip:
            frames, sound = np.zeros((2, size, size, 3), np.uint8), np.zeros((2, 1, 96, 64), np.float32)
            masks = np.zeros((2, size, size), bool)
            return LabelledClip(ref, frames, sound, None, masks, np.ones(2, bool))

    data = LogMelsAlone()
    (ref,) = data.clips("test")
    assert heard_by(data, LOG_MEL) is data
    with pytest.raises(DataError, match=r"clip a_1 of AVSBench has a log-mel and no wav"):
        heard_by(data, Samples()).load(ref, 8, "aligned")


def test_names_that_none_has_and_packages_that_keep_no_contract(installed: Path) -> None:
    assert find_audio_encoder("yamnet").embedding == 1024
    with pytest.raises(BundleError, match=r"one of audio_cnn, broken, my_ear, vggish, yamnet; got beats"):
        find_audio_encoder("beats")
    with pytest.raises(BundleError, match=r"must be an AudioEncoder; my_ears:Ear is"):
        find_audio_encoder("broken")
    (installed / "my_ears.py").write_text("import nothing_of_that_name")
    sys.modules.pop("my_ears", None)
    with pytest.raises(BundleError, match="must be importable"):
        find_audio_encoder("my_ear")


def test_an_embedding_has_numbers() -> None:
    with pytest.raises(BundleError, match="must be positive"):
        AudioEncoder(torch.nn.Identity, embedding=0)


def test_a_front_end_says_how_far_it_hears() -> None:
    """What an AudioEncoder refuses; beartype, which the tests run with, is even before it."""

    class Vague:
        def examples(self, *_: object) -> torch.Tensor:
            return torch.zeros(1)

    assert isinstance(Samples(2.0), FrontEnd)
    assert not isinstance(Vague(), FrontEnd)


def test_samples_are_those_around_the_middle_of_each_second() -> None:
    wave = np.arange(48_000, dtype=np.float32) / 48_000
    one = Samples().examples(wave, 3)
    assert one.shape == (3, 16_000)
    assert torch.equal(one.flatten(), torch.from_numpy(wave))
    wide = Samples(around_s=2.0).examples(wave, 3)
    assert wide.shape == (3, 32_000)
    assert not wide[0, :8_000].any()
    assert torch.equal(wide[1, 8_000:24_000], one[1])
    with pytest.raises(ConfigError, match="aligned"):
        Samples().examples(wave, 3, "official")
    with pytest.raises(ConfigError, match="around_s"):
        Samples(0.0)
