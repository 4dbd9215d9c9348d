"""Where each file of a clip lies below the root of a benchmark."""

from avs_core.datasets.benchmark.manifest import ManifestRow
from avs_core.datasets.benchmark.plan import SECONDS, Tree
from avs_core.datasets.sources import Split

PLAN, MANIFEST, CATEGORIES, CARD, SHEET = (
    "plan.json",
    "manifest.parquet",
    "categories.json",
    "card.md",
    "contact_sheet.jpg",
)
METADATA: dict[Tree, str] = {"s4": "s4_meta_data.csv", "ms3": "ms3_meta_data.csv"}


def frame(setting: Tree, split: str, category: str, clip_id: str, second: int) -> str:
    """The labelled frame of a second (counted from 0; files count from 1)."""
    if setting == "s4":
        return f"s4_data/visual_frames/{split}/{category}/{clip_id}/{clip_id}_{second + 1}.png"
    return f"ms3_data/visual_frames/{clip_id}/{clip_id}.mp4_{second + 1}.png"


def mask(setting: Tree, split: str, category: str, clip_id: str, second: int) -> str:
    """The mask of a second."""
    folder = f"{split}/{category}" if setting == "s4" else split
    return f"{setting}_data/gt_masks/{folder}/{clip_id}/{clip_id}_{second + 1}.png"


def sound(setting: Tree, split: str, category: str, clip_id: str) -> str:
    """The sound, 16 kHz mono."""
    folder = f"{split}/{category}" if setting == "s4" else split
    return f"{setting}_data/audio_wav/{folder}/{clip_id}.wav"


def video(setting: Tree, split: str, clip_id: str) -> str:
    """The clip as a video file."""
    return f"videos/{setting}/{split}/{clip_id}.mp4"


def instances(setting: Tree, split: str, clip_id: str) -> str:
    """The truth about every object, and what the clip is made of."""
    return f"instances/{setting}/{split}/{clip_id}.json"


def labelled(setting: Tree, split: str) -> range:
    """Seconds that have a mask file: in S4's training split the first alone."""
    return range(1 if (setting, split) == ("s4", "train") else SECONDS)


def place_of(row: ManifestRow) -> tuple[Tree, Split, str, str]:
    """The arguments that name a clip's files: setting, split, category (of S4's folders) and id."""
    return row.setting, row.split, row.categories[0] if row.categories else "", row.clip_id
