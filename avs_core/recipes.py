"""Named runs as values: the first file to read. Each is everything that `avs train NAME` needs to know."""

from pathlib import Path

from avs_core.errors import ConfigError
from avs_core.models.tpavi import TPAVIConfig
from avs_core.training.composites import Recipe
from avs_core.training.data import StreamConfig
from avs_core.training.loop import LoopConfig
from avs_core.training.network import Objective

DEMO_CLIPS = Path(__file__).parent / "builtin" / "demo"
"""The clips of `avs demo`, with their truth and their sources."""

RECIPES = (
    Recipe(
        name="tpavi-light",
        about="TPAVI-light on composites of real photographs and recordings, trained on two CPU cores",
        net=TPAVIConfig(backbone="tf_efficientnet_lite0", channels=64, inner=32),
        stream=StreamConfig(size=160, clips=6, frames=2),
        sound_stream=StreamConfig(size=16, clips=10, frames=2),
        sound=LoopConfig(steps=600, lr=2e-3, warm_up=50),
        joint=LoopConfig(steps=1400, lr=1.5e-3),
        objective=Objective(),
    ),
)


def find_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises ConfigError with the names that exist."""
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise ConfigError(f"a recipe must be one of {', '.join(recipe.name for recipe in RECIPES)}; got {name}")
