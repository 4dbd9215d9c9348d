"""The contact sheet: clips in rows, objects outlined (green sounds now, red is silent), and when each one sounds."""

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int16, UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

from avs_core import masks, storage
from avs_core.clip import AUDIO_RATE
from avs_core.datasets.benchmark import layout
from avs_core.datasets.benchmark.manifest import ManifestRow
from avs_core.datasets.benchmark.plan import SECONDS

_TILE, _STRIP, _MARGIN = 168, 330, 6
_SOUNDS, _QUIET, _WAVE, _PAPER, _INK = (60, 230, 90), (240, 70, 60), (150, 150, 160), (24, 24, 28), (235, 235, 235)


def choose(rows: Sequence[ManifestRow], most: int = 20) -> list[ManifestRow]:
    """Clips that show every kind of every setting, one kind after the other, the splits in turn."""
    groups: dict[tuple[str, str], list[ManifestRow]] = {}
    for row in rows:
        groups.setdefault((row.setting, row.kind), []).append(row)
    chosen: list[ManifestRow] = []
    for turn in range(most):
        for index, group in enumerate(groups.values()):
            splits = sorted({row.split for row in group})
            of_split = [row for row in group if row.split == splits[(turn + index) % len(splits)]]
            if turn < len(of_split):
                chosen.append(of_split[turn])
    return sorted(chosen[:most], key=lambda row: (row.setting, row.kind, row.clip_id))


def contact_sheet(root: str, rows: Sequence[ManifestRow]) -> bytes:
    """The JPEG of these clips, read back from the root. Raises StorageError."""
    width = SECONDS * (_TILE + _MARGIN) + _STRIP + _MARGIN
    sheet = Image.new("RGB", (width, len(rows) * (_TILE + _MARGIN) + _MARGIN), _PAPER)
    for index, row in enumerate(rows):
        _draw_row(sheet, index * (_TILE + _MARGIN) + _MARGIN, root, row)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _draw_row(sheet: Image.Image, top: int, root: str, row: ManifestRow) -> None:
    place = layout.place_of(row)
    truth = json.loads(storage.read_bytes(storage.join(root, layout.instances(*place[:2], row.clip_id))))
    for second in range(SECONDS):
        data = storage.read_bytes(storage.join(root, layout.frame(*place, second)))
        tile = _outlined(np.asarray(Image.open(io.BytesIO(data))), truth["objects"], second)
        left = _MARGIN + second * (_TILE + _MARGIN)
        sheet.paste(Image.fromarray(tile).resize((_TILE, _TILE), Image.Resampling.LANCZOS), (left, top))
    samples = storage.read_bytes(storage.join(root, layout.sound(*place)))
    strip = _strip(row, truth["objects"], np.frombuffer(samples[44:], "<i2"))
    sheet.paste(strip, (_MARGIN + SECONDS * (_TILE + _MARGIN), top))


def _outlined(
    picture: UInt8[np.ndarray, "H W 3"], objects: list[dict[str, Any]], second: int
) -> UInt8[np.ndarray, "H W 3"]:
    drawn = picture.copy()
    for one in objects:
        code = one["rle"][second]
        inside = masks.decode(masks.from_row(code["counts"].encode(), *code["size"])).astype(bool)
        drawn[_rim(inside)] = _SOUNDS if one["sounding"][second] else _QUIET
    return drawn


def _rim(inside: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    return np.asarray(ndimage.binary_dilation(inside) & ~inside)


def _strip(row: ManifestRow, objects: list[dict[str, Any]], samples: Int16[np.ndarray, " n"]) -> Image.Image:
    """Name, groups, waveform, and a bar for every object that is bright where it sounds."""
    strip = Image.new("RGB", (_STRIP, _TILE), _PAPER)
    draw = ImageDraw.Draw(strip)
    draw.text((0, 0), f"{row.clip_id}   {row.kind}", fill=_INK)
    draw.text((0, 13), ", ".join(row.subsets), fill=_WAVE)
    loud = np.abs(samples[: len(samples) // _STRIP * _STRIP].reshape(_STRIP, -1).astype(float)).max(1) / 32768
    for x, level in enumerate(loud):
        draw.line((x, 50 - 20 * level, x, 50 + 20 * level), fill=_WAVE)
    step = _STRIP * AUDIO_RATE / len(samples)
    for index, one in enumerate(objects):
        top = 76 + 15 * index
        draw.text((0, top), one["category"], fill=_INK)
        for second, sounds in enumerate(one["sounding"]):
            box = (second * step + 1, top + 12, (second + 1) * step - 2, top + 14)
            draw.rectangle(box, fill=_SOUNDS if sounds else _QUIET)
    return strip
