"""Label rules of spatial operations: channels pass, positions are fixed."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from dcodp.graph.labels import (
    FIXED,
    is_zero,
    labels_of,
    result,
    tensors_in,
)
from dcodp.graph.recording import Recorder


def spatial(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Pooling, resizing, reflection padding: batch and channel pass, positions are fixed."""
    x = args[0]
    first = 2 if x.dim() >= 3 and not (x.dim() == 3 and "2d" in func._schema.name) else 1
    recorder.fix_dims(x, range(first, x.dim()), "positions")
    for tensor in tensors_in(out):
        result(tensor, [*labels_of(x)[:first], *[None] * (tensor.dim() - first)], is_zero(x))


def regions(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """roi_align, roi_pool, grid_sample: channels of the features pass, boxes and grids are fixed."""
    x = args[0]
    recorder.fix_dims(x, [0, *range(2, x.dim())], "positions")
    recorder.fix_all(args[1:], "coordinates to sample at")
    for tensor in tensors_in(out):
        result(tensor, [None, labels_of(x)[1], *[None] * (tensor.dim() - 2)], is_zero(x))


def pad(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x, padding = args[0], args[1]
    axes = list(labels_of(x))
    for i in range(len(padding) // 2):
        dim, (before, after) = x.dim() - 1 - i, padding[2 * i : 2 * i + 2]
        labels = axes[dim]
        if labels is not None and (before or after):
            if before < 0 or after < 0:
                recorder.fix(labels, "channels cut off by a fixed number")
            kept = labels[max(0, -before) : len(labels) - max(0, -after)]
            axes[dim] = np.pad(kept, (max(0, before), max(0, after)), constant_values=FIXED)
    value = args[2] if len(args) > 2 else kwargs.get("value", 0)
    result(out, axes, is_zero(x) and not value)
