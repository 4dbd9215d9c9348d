"""Recipes have names, and a wrong one is answered with them."""

import pytest

from avs_core.errors import ConfigError
from avs_core.models.bundle import load_bundle
from avs_core.recipes import RECIPES, find_recipe


def test_names_are_distinct_and_found() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    for recipe in RECIPES:
        assert find_recipe(recipe.name) is recipe


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(ConfigError, match=r"tpavi-light.*got tpavi-heavy"):
        find_recipe("tpavi-heavy")


def test_the_built_in_bundle_is_what_its_recipe_makes() -> None:
    recipe, config = find_recipe("tpavi-light"), load_bundle("tpavi-light").config
    assert config.tpavi == recipe.net
    assert (config.size, config.window_s, config.trained_on) == (recipe.bundle_size, recipe.window_s, recipe.about)
    assert config.metrics["miou_sounding"] > 0
