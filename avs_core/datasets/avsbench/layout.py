"""Where the files of a clip lie below the root of a tree."""

from dataclasses import dataclass

from avs_core.datasets.avsbench.metadata import AVSS_SECONDS, Listed
from avs_core.datasets.labelled import ClipRef


@dataclass(frozen=True)
class ClipFiles:
    """Paths below the tree's root.

    frames    one a second
    masks     one a labelled second, in the order of `ClipRef.labelled`
    wav       the sound; log_mel is what there may be instead of it
    """

    frames: tuple[str, ...]
    masks: tuple[str, ...]
    wav: str
    log_mel: str | None


def files_of(clip: Listed) -> ClipFiles:
    """The files of a clip of S4, MS3 or AVSS."""
    return {"s4": _s4, "ms3": _ms3, "avss": _avss}[clip.ref.setting](clip)


def data_folders(ref: ClipRef) -> tuple[str, ...]:
    """The folders below the tree's root that a clip's files lie in; raw videos lie elsewhere."""
    if ref.setting == "avss":
        return tuple(AVSS_SECONDS)
    kinds = ("visual_frames", "gt_masks", "audio_wav", "audio_log_mel")
    return tuple(f"{ref.setting}_data/{kind}" for kind in kinds)


def _s4(clip: Listed) -> ClipFiles:
    name, place = clip.name, f"{clip.ref.split}/{clip.folder}/{clip.name}"
    return ClipFiles(
        frames=tuple(f"s4_data/visual_frames/{place}/{name}_{second + 1}.png" for second in range(clip.ref.seconds)),
        masks=tuple(f"s4_data/gt_masks/{place}/{name}_{second + 1}.png" for second in clip.ref.labelled),
        wav=f"s4_data/audio_wav/{place}.wav",
        log_mel=f"s4_data/audio_log_mel/{place}.pkl",
    )


def _ms3(clip: Listed) -> ClipFiles:
    """Frames aren't divided by split, and keep the `.mp4` of the video's name."""
    name, place = clip.name, f"{clip.ref.split}/{clip.name}"
    return ClipFiles(
        frames=tuple(f"ms3_data/visual_frames/{name}/{name}.mp4_{n + 1}.png" for n in range(clip.ref.seconds)),
        masks=tuple(f"ms3_data/gt_masks/{place}/{name}_{second + 1}.png" for second in clip.ref.labelled),
        wav=f"ms3_data/audio_wav/{place}.wav",
        log_mel=f"ms3_data/audio_log_mel/{place}.pkl",
    )


def _avss(clip: Listed) -> ClipFiles:
    place = f"{clip.folder}/{clip.name}"
    return ClipFiles(
        frames=tuple(f"{place}/frames/{second}.jpg" for second in range(clip.ref.seconds)),
        masks=tuple(f"{place}/labels_rgb/{second}.png" for second in clip.ref.labelled),
        wav=f"{place}/audio.wav",
        log_mel=None,
    )
