"""Tiny, valid copies of AVSBench's layouts and of the composite benchmark, the same bytes every time.

Each clip shows one coloured square that walks to the right over noise, and hears a tone; in MS3 the square sounds in
every other second. `*_files` give paths and contents (for S3), `write_*` write them to a folder.
"""

import csv
import io
import json
import wave
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from avs_core import masks
from avs_core.datasets.avsbench.pictures import palette
from avs_core.datasets.benchmark.manifest import ManifestRow, source_id, to_parquet

SIZE = 64
SPLITS: Mapping[str, int] = {"train": 3, "val": 2, "test": 2}
CATEGORIES = ("dog_barking", "playing_violin")
CLASSES = ("background", "dog", "violin", "man", *(f"thing-{number}" for number in range(4, 71)))
RATE = 16_000


def write_s4(root: Path, splits: Mapping[str, int] = SPLITS, size: int = SIZE) -> Path:
    """A copy of S4 with so many clips a split."""
    return write(root, s4_files(splits, size))


def write_ms3(root: Path, splits: Mapping[str, int] = SPLITS, size: int = SIZE) -> Path:
    """A copy of MS3. The first test clip comes from the video of the first training clip, if there are both."""
    return write(root, ms3_files(splits, size))


def write_avss(root: Path, splits: Mapping[str, int] = SPLITS, size: int = SIZE) -> Path:
    """A copy of AVSS, its labels v1s, v1m and v2 in turn within a split."""
    return write(root, avss_files(splits, size))


def write_benchmark(root: Path, splits: Mapping[str, int] = SPLITS, size: int = SIZE) -> Path:
    """A composite benchmark: so many clips a split in each of its two trees, a silent object beside the square."""
    return write(root, benchmark_files(splits, size))


def write(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def s4_files(splits: Mapping[str, int] = SPLITS, size: int = SIZE) -> dict[str, bytes]:
    """S4 as paths and contents."""
    rows, files = [], {}
    for number, (split, index) in enumerate(_clips(splits)):
        name, category = video_id("s4", split, index), CATEGORIES[index % 2]
        rows.append((name, 0, category, split))
        files |= _s4_clip(name, split, category, number, size)
    return {"s4_meta_data.csv": table(("name", "start_time", "category", "split"), rows), **files}


def ms3_files(splits: Mapping[str, int] = SPLITS, size: int = SIZE) -> dict[str, bytes]:
    """MS3 as paths and contents."""
    rows, files = [], {}
    for number, (split, index) in enumerate(_clips(splits)):
        name = (
            f"{video_id('m3', 'train', 0)}_1" if (split, index) == ("test", 0) else f"{video_id('m3', split, index)}_0"
        )
        rows.append((name, split))
        files |= _ms3_clip(name, split, number, size)
    return {"ms3_meta_data.csv": table(("video_id", "split"), rows), **files}


def avss_files(splits: Mapping[str, int] = SPLITS, size: int = SIZE) -> dict[str, bytes]:
    """AVSS as paths and contents."""
    rows, files = [], {"label2idx.json": json.dumps({name: index for index, name in enumerate(CLASSES)}).encode()}
    for number, (split, index) in enumerate(_clips(splits)):
        label = ("v1s", "v1m", "v2")[index % 3]
        video = video_id("av", split, index)
        uid = {"v1s": f"{video}_0_5000", "v1m": f"{video}_0", "v2": f"{video}_30000_40000"}[label]
        rows.append((f"{video}_0" if label == "v1m" else video, uid, 0, 0, CLASSES[1 + number % 3], split, label))
        files |= _avss_clip(uid, split, label, number, size)
    header = ("vid", "uid", "s_min", "s_sec", "a_obj", "split", "label")
    return {"metadata.csv": table(header, rows), **files}


def benchmark_files(splits: Mapping[str, int] = SPLITS, size: int = SIZE) -> dict[str, bytes]:
    """The composite benchmark as paths and contents."""
    files: dict[str, bytes] = {}
    rows: list[ManifestRow] = []
    for number, (split, index) in enumerate(_clips(splits)):
        for setting in ("s4", "ms3"):
            row = _manifest_row(setting, split, index)
            rows.append(row)
            if setting == "s4":
                files |= _s4_clip(row.clip_id, split, row.categories[0], number, size)
            else:
                files |= _ms3_clip(row.clip_id, split, number, size)
            truth = _objects(row, number, size)
            files[f"instances/{setting}/{split}/{row.clip_id}.json"] = json.dumps(truth).encode()
    s4 = [(row.clip_id, 0, row.categories[0], row.split) for row in rows if row.setting == "s4"]
    ms3 = [(row.clip_id, row.split) for row in rows if row.setting == "ms3"]
    return files | {
        "plan.json": b"{}",
        "s4_meta_data.csv": table(("name", "start_time", "category", "split"), s4),
        "ms3_meta_data.csv": table(("video_id", "split"), ms3),
        "categories.json": json.dumps(list(CATEGORIES)).encode(),
        "manifest.parquet": to_parquet(rows, "tiny"),
    }


def video_id(prefix: str, split: str, index: int) -> str:
    """11 characters, as YouTube's."""
    return f"{prefix}{split:-<5}{index:04d}"[:11]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """Comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()


def png(pixels: np.ndarray) -> bytes:
    """A picture (H, W, 3) or a mask (H, W) of uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def wav(seconds: float, hertz: float) -> bytes:
    """A tone, 16-bit PCM, 16 kHz, mono."""
    samples = (8000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def square(second: int, size: int = SIZE) -> np.ndarray:
    """(H, W) bool: where the square is in a second."""
    place = np.zeros((size, size), dtype=bool)
    left = size // 8 + second * size // 16
    place[size // 4 : 3 * size // 4, left : left + size // 3] = True
    return place


def sounds(setting: str, second: int) -> bool:
    """Whether the square is heard in a second."""
    return setting != "ms3" or second % 2 == 0


def _clips(splits: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(split, index) for split, count in splits.items() for index in range(count)]


def _picture(number: int, second: int, size: int) -> np.ndarray:
    rng = np.random.default_rng([number, second])
    pixels = rng.integers(0, 90, (size, size, 3), dtype=np.uint8)
    pixels[square(second, size)] = np.array([(230, 40, 40), (40, 230, 40), (60, 60, 240)], np.uint8)[number % 3]
    return pixels


def _mask(setting: str, second: int, size: int) -> bytes:
    return png(255 * (square(second, size) & sounds(setting, second)).astype(np.uint8))


def _tone(number: int, seconds: int = 5) -> bytes:
    return wav(seconds, 200.0 * (1 + number % 7))


def _s4_clip(name: str, split: str, category: str, number: int, size: int) -> dict[str, bytes]:
    files = {f"s4_data/audio_wav/{split}/{category}/{name}.wav": _tone(number)}
    for second in range(5):
        files[f"s4_data/visual_frames/{split}/{category}/{name}/{name}_{second + 1}.png"] = png(
            _picture(number, second, size)
        )
    for second in range(1 if split == "train" else 5):
        files[f"s4_data/gt_masks/{split}/{category}/{name}/{name}_{second + 1}.png"] = _mask("s4", second, size)
    return files


def _ms3_clip(name: str, split: str, number: int, size: int) -> dict[str, bytes]:
    files = {f"ms3_data/audio_wav/{split}/{name}.wav": _tone(number)}
    for second in range(5):
        files[f"ms3_data/visual_frames/{name}/{name}.mp4_{second + 1}.png"] = png(_picture(number, second, size))
        files[f"ms3_data/gt_masks/{split}/{name}/{name}_{second + 1}.png"] = _mask("ms3", second, size)
    return files


def _avss_clip(uid: str, split: str, label: str, number: int, size: int) -> dict[str, bytes]:
    seconds = 10 if label == "v2" else 5
    files = {f"{label}/{uid}/audio.wav": _tone(number, seconds)}
    for second in range(seconds):
        buffer = io.BytesIO()
        Image.fromarray(_picture(number, second, size)).save(buffer, "JPEG", quality=90)
        files[f"{label}/{uid}/frames/{second}.jpg"] = buffer.getvalue()
    for second in range(1 if (label, split) == ("v1s", "train") else seconds):
        classes = np.where(square(second % 5, size), 1 + number % 3, 0)
        files[f"{label}/{uid}/labels_rgb/{second}.png"] = png(palette()[classes])
    return files


def _manifest_row(setting: str, split: str, index: int) -> ManifestRow:
    category, other = CATEGORIES[index % 2], CATEGORIES[1 - index % 2]
    name = f"{setting}_{split}_{index:05d}"
    images, voices, place = (f"tiny:/{name}_a.png", f"tiny:/{name}_b.png"), (f"tiny:/{name}.wav",), f"tiny:/{name}.jpg"
    return ManifestRow(
        clip_id=name,
        setting=setting,
        split=split,
        kind="distractor",
        seed=index,
        seconds=5,
        source_id=source_id((*images, *voices, place)),
        categories=(category,),
        sources=1,
        subsets=("single", "silent-distractor"),
        image_refs=images,
        sound_refs=voices,
        background_ref=place,
        silent=(other,),
        larger=(other,),
        video=f"videos/{setting}/{split}/{name}.mp4",
    )


def _objects(row: ManifestRow, number: int, size: int) -> dict[str, object]:
    """The square, and a silent bar below it."""
    bar = np.zeros((size, size), dtype=bool)
    bar[7 * size // 8 :] = True
    objects = []
    for index, category in enumerate((*row.categories, *row.silent)):
        visible = [bar if index else square(second, size) for second in range(5)]
        objects.append(
            {
                "object_id": index + 1,
                "category": category,
                "image_ref": row.image_refs[index],
                "sound_ref": None if index else row.sound_refs[0],
                "moves_with_sound": False,
                "sounding": [not index and sounds(row.setting, second) for second in range(5)],
                "rle": [
                    {"size": [size, size], "counts": masks.encode(mask)["counts"].decode("ascii")} for mask in visible
                ],
            }
        )
    return {
        "clip_id": row.clip_id,
        "version": "tiny",
        "height": size,
        "width": size,
        "seconds": 5,
        "objects": objects,
        "clip": asdict(row),
        "files": {},
    }
