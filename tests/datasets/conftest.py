"""A tiny source set on disk, so that composing is tested without the 410 MB of packages."""

import io
import math
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from avs_core.datasets.sources import Background, Catalogue, ClassEntry, Sources

_COLOURS = {"alpha": (230, 30, 30), "beta": (30, 220, 40), "gamma": (40, 60, 230), "delta": (230, 220, 30)}


def wav_bytes(samples: np.ndarray, rate: int, channels: int = 1) -> bytes:
    """A 16-bit PCM file of samples in [-1, 1], shape (n,) or (n, channels)."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def tone(hertz: float, seconds: float, rate: int = 16_000) -> np.ndarray:
    """A sine at half scale."""
    return 0.5 * np.sin(2 * math.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture(scope="session")
def tiny_sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Four classes with five pictures (discs) and five sounds (tones) each, and eight grey places."""
    root = tmp_path_factory.mktemp("sources")
    folder = root / "tiny"
    folder.mkdir()
    classes = {}
    for index, (name, colour) in enumerate(_COLOURS.items()):
        images, sounds = [], []
        for source in "vwxyz":
            picture = Image.new("RGBA", (90, 100))
            ImageDraw.Draw(picture).ellipse((5, 5, 84, 94), fill=(*colour, 255))
            picture.save(folder / f"{name}_{source}.png")
            (folder / f"{name}_{source}.wav").write_bytes(wav_bytes(tone(300 * 2**index, 0.8), 16_000))
            images.append(f"tiny:/{name}_{source}.png")
            sounds.append(f"tiny:/{name}_{source}.wav")
        classes[name] = ClassEntry(settings=("land",), height=(0.3, 0.6), images=tuple(images), sounds=tuple(sounds))
    places = []
    for index, name in enumerate(("field", "moor", "marsh", "heath", "dune", "glade", "steppe", "park")):
        Image.new("RGB", (320, 240), (100 + 5 * index,) * 3).save(folder / f"{name}.png")
        places.append(Background(ref=f"tiny:/{name}.png", setting="land", ground=0.6))
    catalogue = Catalogue(classes=classes, backgrounds=tuple(places), places={"tiny:/alpha_v.png": "air"})
    return Sources(catalogue, Path(root))
