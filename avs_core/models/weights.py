"""Weights by name: what does not fit, and how a network gets those that do."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from avs_core.errors import BundleError


def complaint(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], squeeze: bool = False) -> str:
    """Which weights are missing, unknown or misshapen, by name; "" when all fits.

    Batch-norm step counters may be missing. `squeeze` lets 1×1×1 convolutions stand for linear maps.
    """
    missing = [k for k in expected if k not in found and not k.endswith("num_batches_tracked")]
    unknown = [k for k in found if k not in expected]
    misshapen = [
        f"{k} {tuple(found[k].shape)} instead of {tuple(expected[k].shape)}"
        for k in expected
        if k in found and _shape(found[k], squeeze) != _shape(expected[k], squeeze)
    ]
    parts = (("missing", missing), ("unknown", unknown), ("misshapen", misshapen))
    return "; ".join(f"{len(names)} {what}: {some(names)}" for what, names in parts if names)


def _shape(tensor: Tensor, squeeze: bool) -> tuple[int, ...]:
    """The shape, without the trailing 1×1×1 of a pointwise 3-D convolution if `squeeze`."""
    shape = tuple(tensor.shape)
    return shape[:2] if squeeze and len(shape) == 5 and shape[2:] == (1, 1, 1) else shape


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give checked weights to a module built on the meta device, where nothing was drawn only to be thrown away."""
    own = module.state_dict()
    filled = {k: v.to(own[k].dtype, copy=True).reshape(own[k].shape) for k, v in tensors.items()}
    counters = {k: torch.zeros_like(v, device="cpu") for k, v in own.items() if k not in filled}
    module.load_state_dict(filled | counters, assign=True)
    # What a state dict leaves out, such as the places in Swin's windows, timm computes anew.
    for owner in module.modules():
        unsaved = [name for name, buffer in owner.named_buffers(recurse=False) if buffer.is_meta]
        for name in unsaved:
            setattr(owner, name, torch.empty_like(owner.get_buffer(name), device="cpu"))
        if unsaved and not hasattr(owner, "init_non_persistent_buffers"):
            raise BundleError(
                f"a bundle must hold the whole state of its modules; {type(owner).__name__} has buffers that no state "
                f"dict holds: {some(unsaved)}: register them as persistent"
            )
        if unsaved:
            cast(Any, owner).init_non_persistent_buffers()


def some(names: Sequence[str], limit: int = 8) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
