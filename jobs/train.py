"""`avs train`: train a recipe and write its bundle."""

from dataclasses import replace
from pathlib import Path


def train(
    recipe: str = "tpavi-light", /, *, out: Path, steps: int | None = None, seed: int | None = None, threads: int = 1
) -> int:
    """Train a named recipe on composites, evaluate it on held-out ones and write its bundle.

    Killed and run again, it goes on from its last checkpoint. The source packages are fetched with apt-get.

    Parameters
    ----------
    recipe
        Its name in avs_core/recipes.py; a wrong one lists them.
    out
        Folder for the checkpoints and, under bundle/, the result.
    steps
        Train that many joint steps instead of the recipe's.
    seed
        Of the weights and the clips, instead of the recipe's.
    threads
        Of PyTorch, beside one process that composes clips.
    """
    from avs_core.datasets.sources import Sources, fetch_packages
    from avs_core.recipes import find_recipe
    from avs_core.training.composites import train_recipe

    chosen = find_recipe(recipe)
    if steps is not None:
        chosen = replace(chosen, joint=chosen.joint.model_copy(update={"steps": steps}))
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    bundle = train_recipe(chosen, Sources(root=fetch_packages(None)), out, threads)
    print(f"bundle in {bundle}")
    return 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("train")
