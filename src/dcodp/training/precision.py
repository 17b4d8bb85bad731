"""Where a training in mixed precision needs all digits: in what nets say, and in the losses made of it."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def in_full(tree: Any) -> Any:
    """Every floating-point tensor of a tree of lists, tuples and dictionaries in float32, with its gradient."""
    return tree_map(lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, tree)


def exactly(device: torch.device) -> AbstractContextManager[Any]:
    """Within, nothing is cast to fewer digits: boxes are matched by comparing sums, and assigners by ultralytics write
    scores into tensors of the type that they find, which differ from device to device."""
    return torch.autocast(device.type, enabled=False)


def quickly(device: torch.device) -> AbstractContextManager[Any]:
    """Within, what takes no gradient is multiplied in bfloat16 where the processor does that (AMX, AVX512-BF16: two to
    several times as fast). GPUs keep to what the training has chosen."""
    short = device.type == "cpu" and multiplies_bfloat16()
    return torch.autocast("cpu", torch.bfloat16) if short else contextlib.nullcontext()


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products in bfloat16; without them they are slower than in float32."""
    supported = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in supported)
