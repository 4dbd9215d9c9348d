"""`avs models`: the bundles that are at hand, what one is, and published checkpoints as bundles."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from avs_core.pipelines.segment_config import DEFAULT_MODEL

app = App(name="models", help="List, explain and import model bundles.", result_action="return_value")


@app.command(name="list")
def list_bundles() -> int:
    """List the built-in bundles."""
    from avs_core.models.bundle import BUILTIN

    for folder in sorted(BUILTIN.iterdir()):
        print(folder.name)
    return 0


@app.command
def info(model: str = DEFAULT_MODEL, /) -> int:
    """Print the card and the settings of a bundle.

    Parameters
    ----------
    model
        A built-in bundle's name, a bundle folder, or models:/name@alias.
    """
    from avs_core.models.bundle import read_card
    from avs_core.tracking import resolve_model

    card, config = read_card(resolve_model(model))
    print(card)
    print(config.model_dump_json(indent=2))
    return 0


@app.command(name="import")
def import_checkpoint(
    checkpoint: Path,
    /,
    *,
    vggish: Path,
    out: Path,
    backbone: Literal["pvt_v2_b5", "resnet50"] = "pvt_v2_b5",
    setting: Annotated[Literal["s4", "ms3", "avss"], Parameter(help="Which data set it was trained on.")] = "ms3",
) -> int:
    """Turn a published TPAVI checkpoint and VGGish weights into a bundle.

    Parameters
    ----------
    checkpoint
        The published .pth file of the segmentation network.
    vggish
        The .pth file of VGGish that the network was trained with.
    out
        Folder of the new bundle.
    """
    from avs_core.models.published import import_bundle

    sha256 = import_bundle(out, checkpoint, vggish, backbone, setting)
    # 71 classes are no answer to "does it sound": the main job takes binary models.
    use = f"avs evaluate {out} DATA" if setting == "avss" else f"avs segment INPUT --archive URI --model {out}"
    print(f"{out} (weights {sha256[:12]}): {use}")
    return 0


if __name__ == "__main__":
    from jobs.main import run_verb

    run_verb("models")
