"""Regenerates the inputs and weights behind the stored reference figures of the published AVS code.

Every array is drawn from PCG64 seeded with the array's own name, in float64, then cast to float32.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent
SEED = 20260101


def generator(name: str) -> np.random.Generator:
    """The random stream of one array."""
    return np.random.Generator(np.random.PCG64([SEED, zlib.crc32(name.encode())]))


def normal(name: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal, float32."""
    return torch.from_numpy(np.asarray(generator(name).standard_normal(shape), dtype=np.float32))


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """Uniform in [0, 1), float32."""
    return torch.from_numpy(generator(name).uniform(0, 1, shape).astype(np.float32))


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """One weight of a published network, scaled by what its name says it is."""
    n = np.asarray(generator(name).standard_normal(shape))
    if name.endswith("num_batches_tracked"):
        values = np.zeros(shape)
    elif name.endswith("running_var"):
        values = 1 + 0.5 * np.abs(n)
    elif name.endswith("running_mean"):
        values = 0.1 * n
    elif len(shape) >= 2:
        values = n / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("bias"):
        values = 0.1 * n
    else:
        values = 1 + 0.1 * n
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def state_dict(keys: str) -> dict[str, Tensor]:
    """All weights listed in a `*_keys.json`."""
    return {name: weight(name, tuple(shape)) for name, shape in json.loads((FOLDER / keys).read_text())}


def figures(name: str) -> Any:
    """The content of a stored .json or .npz."""
    path = FOLDER / name
    return json.loads(path.read_text()) if path.suffix == ".json" else np.load(path)
