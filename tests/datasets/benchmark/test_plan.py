"""Plans: numbers, shares, seeds."""

from collections import Counter

import pytest

from avs_core.datasets.benchmark.plan import ATTEMPTS, CLIPS, COMPOSED, SHARES, make_plan, plan_clips
from avs_core.datasets.composites import ComposerConfig
from avs_core.errors import ConfigError


@pytest.mark.parametrize("scale", ["small", "full"])
def test_a_scale_has_its_clips_in_every_split(scale: str) -> None:
    plan = make_plan(scale, 0)
    assert Counter(spec.split for spec in plan.clips) == CLIPS[scale]
    assert len({spec.clip_id for spec in plan.clips}) == len(plan.clips)


def test_shares_add_up() -> None:
    assert sum(share for kinds in SHARES.values() for share in kinds.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("split", ["train", "val", "test", "unseen"])
def test_every_split_has_every_kind_in_its_share(split: str) -> None:
    specs = [spec for spec in make_plan("small", 0).clips if spec.split == split]
    counts = Counter((spec.setting, spec.kind) for spec in specs)
    for setting, kinds in SHARES.items():
        for kind, share in kinds.items():
            assert counts[setting, kind] == pytest.approx(share * len(specs), abs=1.0)


def test_any_stretch_of_a_split_is_mixed() -> None:
    specs = [spec for spec in make_plan("full", 0).clips if spec.split == "train"][:100]
    assert len({(spec.setting, spec.kind) for spec in specs}) == sum(len(kinds) for kinds in SHARES.values())


def test_no_two_clips_try_the_same_seed() -> None:
    seeds = [spec.seed for seed in (0, 1) for spec in make_plan("full", seed).clips]
    assert min(b - a for a, b in zip(sorted(seeds), sorted(seeds)[1:], strict=False)) >= ATTEMPTS


def test_a_plan_depends_on_scale_and_seed_alone() -> None:
    assert make_plan("small", 3) == make_plan("small", 3)
    assert make_plan("small", 3) != make_plan("small", 4)
    with pytest.raises(ConfigError, match="seed"):
        plan_clips("none", {"train": 1}, -1)


def test_every_kind_is_a_composer_that_can_be() -> None:
    for changes in COMPOSED.values():
        ComposerConfig(**changes)
    spans = {spec.setting: spec.composed()["spans"] for spec in make_plan("small", 0).clips}
    assert spans == {"s4": "whole", "ms3": "parts"}
