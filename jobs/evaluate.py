"""`avs evaluate`: measure a bundle on held-out composites."""

import json
from typing import Literal


def evaluate(
    bundle: str = "tpavi-light", /, *, split: Literal["val", "test", "unseen"] = "test", clips: int = 100
) -> int:
    """Score a bundle on composites whose sources were in no training clip, and print its figures as JSON.

    Each clip is scored with its own sound, with near silence and with another clip's sound. The source packages are
    fetched with apt-get.

    Parameters
    ----------
    bundle
        A built-in bundle's name, a folder or a URI.
    split
        test: for reporting. val: chose the threshold. unseen: kinds of things that no training clip has.
    clips
        How many, of 5 s each.
    """
    from avs_core.datasets.sources import Sources, fetch_packages
    from avs_core.models.bundle import load_bundle
    from avs_core.training.card import figures
    from avs_core.training.composites import held_out

    loaded = load_bundle(bundle)
    found = held_out(loaded, Sources(root=fetch_packages(None)), split, clips)
    print(json.dumps(figures(found, loaded.config.threshold), indent=1))
    return 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("evaluate")
